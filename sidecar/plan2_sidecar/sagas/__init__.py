"""Operations that span engines: planned here, logged in PostgreSQL, finished by any sidecar.

request                       what is asked
plan, references, repeats     what will be done, worked out without reaching anything
record, log, statements       what is known, and its durable home
effects                       what is done to each engine once
attempt, run                  one step, and a whole operation, brought to its end
leases, service               who does it, and until when
read                          mode read, which has no log
"""
