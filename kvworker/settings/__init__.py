"""The configuration: one frozen ``Settings``, read once from a YAML file and the environment.

Each block of the file is a pydantic model here, including those of the bundled adapters. Pydantic collects every
problem, and ``problems`` translates them into one ``ConfigurationError``. This package imports only
``kvworker.model`` and ``kvworker.errors``: no Celery, no SQLAlchemy and no adapter, so that a client starts quickly.
"""

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
