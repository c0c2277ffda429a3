"""The operator: one Plan2Database becomes six engines in the cluster, and stays so.

    handlers → work_queue → reconcile:
        spec.decode → credentials → engines.objects → cluster.apply → prune
        → provision (beside it) → observe → status.of, written once

`spec`, `desired`, `engines`, `manifests` and `status` are pure; `cluster` is the only writer.
`injector` is a program of its own. Nothing here imports the sidecar.
"""
