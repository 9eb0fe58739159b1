"""Files with which Witness is brought to a cluster: a container image, and manifests for KubeRay.

`Dockerfile` makes the image. `shared-volume.yaml`, `raycluster.yaml`, `rayjob.yaml` and `raycronjob.yaml` are manifests
for Kubernetes: a disk, a cluster that stays, one job with a cluster of its own, and a schedule. `cluster.yaml`, in the
root of the repository, is for AWS without Kubernetes.
"""
