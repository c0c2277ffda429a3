"""The injector: puts the sidecar into pods that carry the label `plan2.io/inject: <cr>`.

A program of its own (`plan2-injector`), so that pods are admitted while the operator is away.
A request goes `app` -> `admission.answer` -> `patch.inject` -> `sidecar.container`, all of it
pure and from memory: what it needs to know about a resource stands in `watch.Cache`. Apart from
requests, `keeper` makes and renews the certificates (`certificates` pure, `secrets` effects).
Anything that goes wrong admits the pod unpatched, with a warning and a metric: a pod is never
refused here.
"""
