"""What the operator and the sidecar both mean by the same word; no I/O happens here.

`engines` names the six engines and the legacy one, `connection` is the document the operator
writes and a sidecar reads, `environment` the variables both know, `names` the labels,
annotations and object names in the cluster. Nothing here imports either program.
"""
