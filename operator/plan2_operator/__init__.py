"""The operator: from a Plan2Database to running engines, and to what a sidecar needs of them.

One path for create, update, restart, drift and resync alike:

    handlers (an event names a resource) → work_queue → reconcile
      → spec.decode → engines and desired (pure: what should be)
      → rollout (each engine by itself: credentials, objects, provisioning)
      → prune → observe → status.of (pure) → status, written once and only if it changed

`cluster` is the only writer. `injector` is a program of its own.

What it needs of the API, each in the namespaces it watches:

    plan2.io                 plan2databases            get list watch
    plan2.io                 plan2databases/status     update
    apps                     statefulsets              list watch create patch delete
    (core)                   services                  list watch create patch delete
    (core)                   configmaps                get list watch create patch delete
    policy                   poddisruptionbudgets      list watch create patch delete
    networking.k8s.io        networkpolicies           list watch create patch delete
    (core)                   secrets                   get create patch
    (core)                   persistentvolumeclaims    get patch
    (core)                   pods                      list watch
    (core)                   events                    create
    monitoring.coreos.com    servicemonitors, prometheusrules    list create patch delete
"""
