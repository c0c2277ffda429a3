"""Operations that span engines: planned here, logged in PostgreSQL, finished by any sidecar.

`request` what is asked · `plan`, `references`, `repeats` what will be done, worked out without
reaching anything · `record`, `log` what is known, and its durable home · `effects` what is done
to each engine once · `run`, `leases`, `service` who does it, and until when.
"""
