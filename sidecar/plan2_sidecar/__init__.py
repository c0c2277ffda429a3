"""The sidecar: one localhost API over the engines of a Plan2Database.

A request goes downwards only: server, `api/wire` decodes, `routing` chooses, `guard` admits,
`engines/<one>` executes, `api/wire` answers. No driver is imported before its first use.
"""
