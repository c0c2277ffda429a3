"""Rate limits that are exact across sidecars.

`limiter` is the way in: `try_local` answers what needs no store, `check` the rest. The store
counts; what a fixed window's counter grants (`lease`) is spent here without asking again. The
Lua that runs on the store is in `scripts`, what happens without a store in `fallback`.
"""
