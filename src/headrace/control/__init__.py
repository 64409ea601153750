"""Floor 5: the level-triggered reconciler, which keeps what runs equal to what was asked."""

from headrace.control.checking import Checked, Checker
from headrace.control.every_gateway import EveryGateway
from headrace.control.folder_check import FolderChecker
from headrace.control.gateway_client import GatewayAway, GatewayClient, HttpGatewayClient
from headrace.control.inference_tables import InferenceTables
from headrace.control.reconciler import Reconciler
from headrace.control.usage import UsageIngester

__all__ = [
    "Checked",
    "Checker",
    "EveryGateway",
    "FolderChecker",
    "GatewayAway",
    "GatewayClient",
    "HttpGatewayClient",
    "InferenceTables",
    "Reconciler",
    "UsageIngester",
]
