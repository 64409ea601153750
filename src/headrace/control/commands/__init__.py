"""What users may ask for: each command is one transaction's worth of rows, which the reconciler then makes true.

A caller runs a command in a transaction of its own and wakes the reconciler once that is committed.
"""

from headrace.control.commands.deploy import DeployRequest, deploy
from headrace.control.commands.keys import create_key, limit_key, revoke_key
from headrace.control.commands.quota import Usage, set_quota, usage
from headrace.control.commands.remove import delete_endpoint, delete_model, undeploy
from headrace.control.commands.request_log import change_request_log
from headrace.control.commands.rollout import change_rollout, start_rollout
from headrace.control.commands.scale import autoscale, resize, scale_to_zero
from headrace.control.commands.split import split_traffic

__all__ = [
    "DeployRequest",
    "Usage",
    "autoscale",
    "change_request_log",
    "change_rollout",
    "create_key",
    "delete_endpoint",
    "delete_model",
    "deploy",
    "limit_key",
    "resize",
    "revoke_key",
    "scale_to_zero",
    "set_quota",
    "split_traffic",
    "start_rollout",
    "undeploy",
    "usage",
]
