"""Serving endpoints: a config, and the way from one config to the next without a request that is turned away."""

from headrace.control.serving.change import (
    ServingRequest,
    create_serving_endpoint,
    delete_serving_endpoint,
    find_serving_endpoint,
    update_serving_config,
)
from headrace.control.serving.progress import advance_config, updating
from headrace.control.serving.scale import Scale, scale_of
from headrace.control.serving.view import ServingView, view_of

__all__ = [
    "Scale",
    "ServingRequest",
    "ServingView",
    "advance_config",
    "create_serving_endpoint",
    "delete_serving_endpoint",
    "find_serving_endpoint",
    "scale_of",
    "update_serving_config",
    "updating",
    "view_of",
]
