"""The HTTP server: aiohttp's, with a short way in front of it for the calls made all day.

internals   the few things of aiohttp that are not its public interface
heads       a request's head, read when it is plain; pure
hot         which calls there are on the short way, and how an answer is written; pure
later       a reply that is still to come, with a task or without
protocol    one connection: whole plain requests are answered at once, the rest is aiohttp's
"""
