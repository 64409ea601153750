"""What users may ask for: each command is one transaction's worth of rows, which the reconciler then makes true.

A caller runs a command in a transaction of its own and wakes the reconciler once that is committed.
"""

from headrace.control.checking import require_deployable
from headrace.control.commands.deploy import DeployRequest, deploy
from headrace.control.commands.deploy_version import VersionRequest, deploy_version
from headrace.control.commands.endpoint import EndpointRequest, change_endpoint, create_endpoint, endpoint_updated
from headrace.control.commands.governance import (
    patch_permissions,
    patch_tags,
    set_ai_gateway,
    set_permissions,
    set_rate_limits,
)
from headrace.control.commands.key_pairs import KeyPair, new_key_pair
from headrace.control.commands.keys import create_key, limit_key, revoke_key
from headrace.control.commands.licences import accept_licence, licence_accepted
from headrace.control.commands.mutate import mutate_deployed_model
from headrace.control.commands.profiles import delete_profile, store_profile
from headrace.control.commands.provision import set_provision
from headrace.control.commands.quota import Usage, set_quota, usage
from headrace.control.commands.register import UploadRequest, upload
from headrace.control.commands.registry import change_model, change_version, delete_version, merge_aliases
from headrace.control.commands.remove import delete_endpoint, delete_model, undeploy
from headrace.control.commands.request_log import change_request_log
from headrace.control.commands.rollout import change_rollout, start_rollout
from headrace.control.commands.scale import autoscale, resize, scale_to_zero
from headrace.control.commands.split import split_traffic

__all__ = [
    "DeployRequest",
    "EndpointRequest",
    "KeyPair",
    "UploadRequest",
    "Usage",
    "VersionRequest",
    "accept_licence",
    "autoscale",
    "change_endpoint",
    "change_model",
    "change_request_log",
    "change_rollout",
    "change_version",
    "create_endpoint",
    "create_key",
    "delete_endpoint",
    "delete_model",
    "delete_profile",
    "delete_version",
    "deploy",
    "deploy_version",
    "endpoint_updated",
    "licence_accepted",
    "limit_key",
    "merge_aliases",
    "mutate_deployed_model",
    "new_key_pair",
    "patch_permissions",
    "patch_tags",
    "require_deployable",
    "resize",
    "revoke_key",
    "scale_to_zero",
    "set_ai_gateway",
    "set_permissions",
    "set_provision",
    "set_quota",
    "set_rate_limits",
    "split_traffic",
    "start_rollout",
    "store_profile",
    "undeploy",
    "upload",
    "usage",
]
