"""What a user of databricks-sdk does around an endpoint: ``HOST TOKEN ENDPOINT ID SERVED USER USER_TOKEN``.

The last line is what came of it, as JSON.
"""

import json
import sys

from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import DatabricksError
from databricks.sdk.service import serving

host, token, name, endpoint_id, served, user, user_token = sys.argv[1:]
client = WorkspaceClient(host=host, token=token)
endpoints = client.serving_endpoints
told = {}


def refusal(call):
    """The class and the words of the error that a call ends with."""
    try:
        call()
    except DatabricksError as error:
        return [type(error).__name__, error.error_code, str(error)]
    return None


tags = endpoints.patch(name, add_tags=[serving.EndpointTag("team", "rivers")], delete_tags=["z"])
told["tags"] = tags.as_dict()
minute = serving.RateLimitRenewalPeriod.MINUTE
limits = [serving.RateLimit(renewal_period=minute, calls=1000, key=serving.RateLimitKey.USER)]
told["limits"] = endpoints.put(name, rate_limits=limits).as_dict()
gateway_minute = serving.AiGatewayRateLimitRenewalPeriod.MINUTE
told["gateway"] = endpoints.put_ai_gateway(
    name,
    rate_limits=[serving.AiGatewayRateLimit(renewal_period=gateway_minute, calls=900, tokens=90_000)],
    usage_tracking_config=serving.AiGatewayUsageTrackingConfig(enabled=True),
    inference_table_config=serving.AiGatewayInferenceTableConfig(
        catalog_name="main", schema_name="logs", table_name_prefix="rivers", enabled=True
    ),
).as_dict()
told["shown"] = endpoints.get(name).ai_gateway.as_dict()
told["guardrails"] = refusal(
    lambda: endpoints.put_ai_gateway(
        name,
        guardrails=serving.AiGatewayGuardrails(input=serving.AiGatewayGuardrailParameters(safety=True)),
    )
)
told["group"] = refusal(
    lambda: endpoints.put_ai_gateway(
        name,
        rate_limits=[
            serving.AiGatewayRateLimit(
                renewal_period=gateway_minute,
                calls=1,
                key=serving.AiGatewayRateLimitKey.USER_GROUP,
                principal="g",
            )
        ],
    )
)
told["missing"] = refusal(lambda: endpoints.patch("nope", add_tags=[serving.EndpointTag("a", "b")]))

told["levels"] = [
    level.permission_level.value for level in endpoints.get_permission_levels(endpoint_id).permission_levels
]
entry = serving.ServingEndpointAccessControlRequest(
    user_name=user, permission_level=serving.ServingEndpointPermissionLevel.CAN_QUERY
)
told["set"] = endpoints.set_permissions(endpoint_id, access_control_list=[entry]).as_dict()
told["got"] = endpoints.get_permissions(endpoint_id).as_dict()
view = serving.ServingEndpointAccessControlRequest(
    user_name=user, permission_level=serving.ServingEndpointPermissionLevel.CAN_VIEW
)
told["updated"] = endpoints.update_permissions(endpoint_id, access_control_list=[view]).as_dict()
theirs = WorkspaceClient(host=host, token=user_token)
told["denied"] = refusal(lambda: theirs.serving_endpoints.patch(name, delete_tags=["team"]))

told["logs"] = endpoints.logs(name, served).logs
told["build_logs"] = endpoints.build_logs(name, served).logs
told["no_logs"] = refusal(lambda: endpoints.logs(name, "nope"))
told["metrics"] = endpoints.export_metrics(name).contents.read().decode()
told["openapi"] = json.loads(endpoints.get_open_api(name).contents.read())
told["external"] = refusal(
    lambda: endpoints.http_request("c", serving.ExternalFunctionRequestHttpMethod.POST, "/x", json={"a": 1})
)
print(json.dumps(told))
