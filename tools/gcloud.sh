#!/usr/bin/env bash
# Has gcloud, unmodified, do against a running server what Google's documents do with it: register a model, make an
# endpoint, deploy, ask in three ways, and take all of it away again. It cannot be had from a package registry: the test
# (tests/clients/test_gcloud.py) runs this where it is installed, and so may anybody who has it:
#
#     headrace serve &
#     tools/gcloud.sh FOLDER [REGION]
#
# FOLDER is a model's, on the server's machine. Ends with 0 if every command did; names the first one that did not.
set -euo pipefail

if [ $# -lt 1 ]; then
    echo "usage: tools/gcloud.sh FOLDER [REGION]" >&2
    exit 2
fi
if ! command -v gcloud > /dev/null; then
    echo "gcloud is not installed: https://cloud.google.com/sdk/docs/install" >&2
    exit 2
fi

folder=$(realpath "$1")
region=${2:-us-central1}
name="gcloud-$$"
image=vllm/vllm-openai:latest # names a runtime of ours: no image is run
model="" endpoint="" deployed=""

settings=$(headrace env gcloud)
eval "$settings"
if [ -z "${CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM:-}" ]; then
    echo "\`headrace env gcloud\` named no address: gcloud would ask Google's" >&2
    exit 2
fi
export CLOUDSDK_CORE_DISABLE_USAGE_REPORTING=true CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK=true

step() {
    echo "+ gcloud $*" >&2
    gcloud "$@" --quiet
}

clean() {
    status=$?
    trap - EXIT
    [ -z "$deployed" ] || step ai endpoints undeploy-model "$endpoint" --region="$region" \
        --deployed-model-id="$deployed" || status=1
    [ -z "$endpoint" ] || step ai endpoints delete "$endpoint" --region="$region" || status=1
    [ -z "$model" ] || step ai models delete "$model" --region="$region" || status=1
    [ "$status" -ne 0 ] || echo "Every command of gcloud did what it says." >&2
    exit "$status"
}
trap clean EXIT

step ai model-garden models list
step ai models upload --region="$region" --display-name="$name" --artifact-uri="$folder" --container-image-uri="$image"
model=$(step ai models list --region="$region" --filter="displayName=$name" --format="value(name.basename())")
[ -n "$model" ] || { echo "models list does not show what was uploaded" >&2; exit 1; }
step ai models describe "$model" --region="$region"

step ai endpoints create --region="$region" --display-name="$name"
endpoint=$(step ai endpoints list --region="$region" --filter="displayName=$name" --format="value(name.basename())")
[ -n "$endpoint" ] || { echo "endpoints list does not show what was created" >&2; exit 1; }
step ai endpoints deploy-model "$endpoint" --region="$region" --model="$model" --display-name="$name" \
    --traffic-split=0=100
deployed=$(step ai endpoints describe "$endpoint" --region="$region" --format="value(deployedModels[0].id)")
[ -n "$deployed" ] || { echo "endpoints describe does not show what was deployed" >&2; exit 1; }

instances='{"instances": [{"prompt": "The capital of Japan is", "max_tokens": 8}]}'
request=$(mktemp)
printf '%s' "$instances" > "$request"
step ai endpoints predict "$endpoint" --region="$region" --json-request="$request"
step ai endpoints raw-predict "$endpoint" --region="$region" --request="@$request"
step ai endpoints stream-raw-predict "$endpoint" --region="$region" --request="@$request"
rm "$request"
