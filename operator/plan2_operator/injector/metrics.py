"""The injector's metrics, on a registry of their own so that tests start from nothing."""

from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# A request is answered from memory: above a tenth of a second something is wrong.
SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0)


class Metrics:
    """What is counted; `registry` is what /metrics shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.admissions = Counter(
            "plan2_injector_admissions_total",
            "Pods admitted, by what became of them.",
            ("outcome", "reason"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "plan2_injector_admission_seconds",
            "Time to answer one AdmissionReview.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.resources = Gauge(
            "plan2_injector_known_resources",
            "Plan2Databases in the cache.",
            registry=self.registry,
        )
        self.certificate_expiry = Gauge(
            "plan2_injector_certificate_expiry_timestamp_seconds",
            "When the certificate expires, as a Unix timestamp.",
            ("certificate",),
            registry=self.registry,
        )
        self.certificate_failures = Counter(
            "plan2_injector_certificate_failures_total",
            "Rounds of certificate keeping that failed.",
            registry=self.registry,
        )

    def expiry(self, certificate: str, moment: datetime) -> None:
        """Show when `authority` or `leaf` expires."""
        self.certificate_expiry.labels(certificate).set(moment.timestamp())
