"""What `gcloud ai model-garden models deploy` asks before it deploys: Cloud Quotas and Cloud Monitoring.

It wants to know how many accelerators the project may have in a region, and how many it has. There are no such quotas
here, so it is told a number that nothing reaches, and that nothing is used. The shapes are those of
https://cloud.google.com/docs/quotas/reference/rest/v1/QuotaInfo and
https://cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.timeSeries/list, as far as gcloud 528 reads them.
"""

from __future__ import annotations

from typing import Any

NO_LIMIT = 1_000_000
"""Accelerators of one kind."""

REGIONS = (
    "africa-south1",
    "asia-east1",
    "asia-east2",
    "asia-northeast1",
    "asia-northeast2",
    "asia-northeast3",
    "asia-south1",
    "asia-southeast1",
    "asia-southeast2",
    "australia-southeast1",
    "australia-southeast2",
    "europe-central2",
    "europe-north1",
    "europe-southwest1",
    "europe-west1",
    "europe-west2",
    "europe-west3",
    "europe-west4",
    "europe-west6",
    "europe-west8",
    "europe-west9",
    "europe-west12",
    "me-central1",
    "me-central2",
    "me-west1",
    "northamerica-northeast1",
    "northamerica-northeast2",
    "southamerica-east1",
    "southamerica-west1",
    "us-central1",
    "us-east1",
    "us-east4",
    "us-east5",
    "us-south1",
    "us-west1",
    "us-west2",
    "us-west3",
    "us-west4",
)
"""Vertex AI's regions (https://cloud.google.com/vertex-ai/docs/general/locations): gcloud takes no other."""


def quota_info_json(project: str, quota_id: str) -> dict[str, Any]:
    """A ``QuotaInfo`` that limits nothing."""
    service = "aiplatform.googleapis.com"
    return {
        "name": f"projects/{project}/locations/global/services/{service}/quotaInfos/{quota_id}",
        "quotaId": quota_id,
        "service": service,
        "dimensionsInfos": [{"applicableLocations": list(REGIONS), "details": {"value": str(NO_LIMIT)}}],
    }


def time_series_json() -> dict[str, Any]:
    """What was used of it: nothing."""
    return {"timeSeries": []}
