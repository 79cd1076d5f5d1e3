"""The rules of KEDA 2.20 for the objects in deploy/kubernetes/keda, since no package for Python validates them.

They say what its definitions of the two kinds, and the metadata of its scalers ``redis`` and ``prometheus``, allow.
KEDA itself finds a wrong trigger only when it begins to scale, and ignores a misspelt key of a trigger's metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from jsonschema import Draft202012Validator

from tests.support.manifests import Manifest

_NUMBER: Final = {"type": "string", "pattern": r"^\d+(\.\d+)?$"}
_WHOLE: Final = {"type": "string", "pattern": r"^\d+$"}
_SWITCH: Final = {"enum": ["true", "false"]}
_TEXT: Final = {"type": "string", "minLength": 1}
_WHOLE_NUMBER: Final = {"type": "integer", "minimum": 0}


def _object(required: Mapping[str, Any], optional: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": [*required],
        "properties": {**required, **optional},
        "additionalProperties": False,
    }


#: Parameters of a login, which a TriggerAuthentication names, are not among them.
_METADATA: Final = {
    "redis": _object(
        {"address": {"type": "string", "pattern": r"^[\w.-]+:\d+$"}, "listName": _TEXT},
        {
            "listLength": _WHOLE,
            "activationListLength": _WHOLE,
            "databaseIndex": _WHOLE,
            "enableTLS": _SWITCH,
            "unsafeSsl": _SWITCH,
        },
    ),
    "prometheus": _object(
        {"serverAddress": {"type": "string", "pattern": "^https?://"}, "query": _TEXT, "threshold": _NUMBER},
        {
            "activationThreshold": _NUMBER,
            "namespace": _TEXT,
            "customHeaders": _TEXT,
            "queryParameters": _TEXT,
            "ignoreNullValues": _SWITCH,
            "unsafeSsl": _SWITCH,
            "timeout": _TEXT,
        },
    ),
}


def _trigger(kind: str) -> dict[str, Any]:
    return _object(
        {"type": {"const": kind}, "metadata": _METADATA[kind]},
        {
            "name": _TEXT,
            "metricType": {"enum": ["Value", "AverageValue"]},
            "useCachedMetrics": {"type": "boolean"},
            "authenticationRef": _object(
                {"name": _TEXT}, {"kind": {"enum": ["TriggerAuthentication", "ClusterTriggerAuthentication"]}}
            ),
        },
    )


_SPECS: Final = {
    "ScaledObject": _object(
        {
            "scaleTargetRef": _object(
                {"name": _TEXT}, {"apiVersion": _TEXT, "kind": _TEXT, "envSourceContainerName": _TEXT}
            ),
            "triggers": {"type": "array", "minItems": 1, "items": {"oneOf": [_trigger(kind) for kind in _METADATA]}},
        },
        {
            "pollingInterval": _WHOLE_NUMBER,
            "initialCooldownPeriod": _WHOLE_NUMBER,
            "cooldownPeriod": _WHOLE_NUMBER,
            "idleReplicaCount": _WHOLE_NUMBER,
            "minReplicaCount": _WHOLE_NUMBER,
            "maxReplicaCount": _WHOLE_NUMBER,
            "fallback": {"type": "object"},
            "advanced": _object(
                {},
                {
                    # Kubernetes' own type; see ``autoscaler``.
                    "horizontalPodAutoscalerConfig": _object({}, {"name": _TEXT, "behavior": {"type": "object"}}),
                    "restoreToOriginalReplicaCount": {"type": "boolean"},
                    "scalingModifiers": {"type": "object"},
                },
            ),
        },
    ),
    "TriggerAuthentication": _object(
        {
            "secretTargetRef": {
                "type": "array",
                "items": _object({"parameter": {"enum": ["username", "password"]}, "name": _TEXT, "key": _TEXT}, {}),
            }
        },
        {},
    ),
}


def validate(manifest: Manifest) -> None:
    """Check an object of KEDA.

    Raises:
        jsonschema.ValidationError: KEDA refuses it, or would ignore a part of it.
    """
    rules = _object(
        {
            "apiVersion": {"const": "keda.sh/v1alpha1"},
            "kind": {"const": manifest["kind"]},
            "metadata": _object({"name": _TEXT}, {"labels": {"type": "object"}}),
            "spec": _SPECS[manifest["kind"]],
        },
        {},
    )
    Draft202012Validator(rules).validate(manifest)


def autoscaler(scaled: Manifest) -> Manifest:
    """The autoscaler that KEDA makes of a ScaledObject, without its metrics, for Kubernetes' own rules."""
    spec = scaled["spec"]
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": f"keda-hpa-{scaled['metadata']['name']}"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", **spec["scaleTargetRef"]},
            "minReplicas": spec["minReplicaCount"],
            "maxReplicas": spec["maxReplicaCount"],
            "behavior": spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"],
        },
    }
