"""What the monitor refuses. Transports map `kind`.

NotFound
├── UnknownDeployment
└── UnknownWindow
Invalid
└── BaselineRefused
"""

from services.contracts.errors import Invalid, NotFound


class UnknownDeployment(NotFound):
    """There is no deployment named {deployment}."""

    hint = "'millrace deployments list' shows those there are"
    field = "deployment"


class UnknownWindow(NotFound):
    """{deployment} has no tested window {number}."""

    hint = "'millrace deployments windows {deployment}' lists those that are kept"
    field = "number"


class BaselineRefused(Invalid):
    """The {variant} baseline of version {version} cannot be used: {problem}."""

    hint = "train the version again; until then its traffic is not tested for drift"
