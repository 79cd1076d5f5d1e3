"""The configuration: one frozen object, read once from a file and the environment, valid or not constructed."""

from kvworker.settings.blocks import ConversationStoreSettings, FacadeSettings, MaintenanceSettings, QueueSettings
from kvworker.settings.personas import PersonaSettings
from kvworker.settings.policies import PoliciesSettings
from kvworker.settings.root import Settings
from kvworker.settings.store import Store
from kvworker.settings.urls import redacted_url

__all__ = [
    "ConversationStoreSettings",
    "FacadeSettings",
    "MaintenanceSettings",
    "PersonaSettings",
    "PoliciesSettings",
    "QueueSettings",
    "Settings",
    "Store",
    "redacted_url",
]
