"""The HTTP API: one module a resource, which decodes, calls a service object and encodes.

resource                         what such a module declares of each call
wire, segments, accept, body     bodies, paths, the Accept header, what else a request holds
reply, problems                  answers, and errors as answers
door, listener, short            who may come in, and how calls arrive
openapi                          all of it described
"""
