"""Rate limits that are exact across sidecars.

limiter   the way in: `try_local` answers what needs no store, `check` the rest
model     what is asked and answered
lease     what the store granted of a fixed window, spent here without asking again
line      those who wait for the next grant
clients   who was asked about lately, and which generation of counters they have
counters  the counters on the store; `scripts` is the Lua that runs there
presence  how many sidecars share the limits
fallback  what is decided without a store
store     what of the store is used, as a seam
"""
