"""What the registry refuses. Transports map `kind`; the facts name the thing that was refused.

NotFound
├── UnknownModel
├── UnknownVersion
├── UnknownAlias
└── UnknownDeployment
Conflict
├── GateRefused
├── StaleComparison
├── RolloutUnderWay
├── NoRollout
├── NotReadyYet
├── IllegalMove
├── AlreadyServing
├── NothingToRollBackTo
├── DeploymentExists
├── NotStopped
└── ReservedAlias
Stale
└── PreconditionFailed
Invalid
├── InvalidPolicy
├── InvalidSpec
└── ChainIsIntact
"""

from services.contracts.errors import Conflict, Invalid, NotFound, Stale


class UnknownModel(NotFound):
    """There is no model named {model}."""

    hint = "'millrace models list' shows those there are"
    field = "model"


class UnknownVersion(NotFound):
    """Model {model} has no version {version}."""

    hint = "'millrace models show {model}' shows its versions"
    field = "version"


class UnknownAlias(NotFound):
    """Model {model} has no alias @{alias}."""

    hint = "'millrace models show {model}' shows its aliases"
    field = "version"


class UnknownDeployment(NotFound):
    """There is no deployment named {deployment}."""

    hint = "'millrace deployments list' shows those there are"
    field = "deployment"


class GateRefused(Conflict):
    """Version {version} of {model} did not pass its gate: {checks}."""

    hint = "train a better version, or roll it out all the same with skip_gate (--skip-gate)"
    field = "version"


class StaleComparison(Conflict):
    """Version {version} of {model} was judged against version {compared}, but version {champion} serves now."""

    hint = "retrain, so that it is compared with the present champion, or go on with skip_gate (--skip-gate)"
    field = "version"


class RolloutUnderWay(Conflict):
    """Rollout {rollout} of version {version} is still {state} on {deployment}."""

    hint = "wait for its end, or approve, promote or roll it back"
    field = "deployment"


class NoRollout(Conflict):
    """No rollout is under way on {deployment}."""

    field = "deployment"


class NotReadyYet(Conflict):
    """Version {version} is not ready on every replica of {deployment} yet, so it cannot take traffic."""

    hint = "wait until it is loaded, or roll it back"
    field = "deployment"


class IllegalMove(Conflict):
    """{what} is {state} and cannot become {move}."""

    field = "deployment"


class AlreadyServing(Conflict):
    """Version {version} already serves {deployment}."""

    field = "version"


class NothingToRollBackTo(Conflict):
    """No version served {deployment} before the present one."""

    hint = "start a rollout of the version you want"
    field = "deployment"


class DeploymentExists(Conflict):
    """There is a deployment named {deployment} already."""

    hint = "change it ('millrace deployments change {deployment}'), or choose another name"
    field = "deployment"


class NotStopped(Conflict):
    """{deployment} still serves, or a rollout of it is under way."""

    hint = "stop it first: 'millrace deployments stop {deployment}'"
    field = "deployment"


class ReservedAlias(Conflict):
    """@{alias} moves with rollouts alone."""

    hint = "start, promote or roll back a rollout instead, or choose another alias"
    field = "alias"


class PreconditionFailed(Stale):
    """{deployment} is at generation {current}, not at {expected}."""

    hint = "'millrace deployments show {deployment}' shows what it is now; decide anew"
    field = "expected_generation"


class ChainIsIntact(Invalid):
    """The whole chain is told without filters."""

    field = "whole_chain"
    hint = "leave stream, kind, actor, since and until out, or whole_chain"


class InvalidPolicy(Invalid):
    """The rollout policy is not valid: {problem}."""

    field = "policy"


class InvalidSpec(Invalid):
    """The specification of the deployment is not valid: {problem}."""
