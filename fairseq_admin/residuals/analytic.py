"""Admin's omega by the number of sublayers, without a profile (admin-torch)."""

from fairseq_admin.residuals.admin import AdminResidual
from fairseq_admin.residuals.omegas import analytic_omega
from fairseq_admin.residuals.residual import Place


class AnalyticResidual(AdminResidual):
    """``LN(x * omega + f(x))``, every omega of a stack the same when training begins."""

    profiled = False
    options = ("output_change",)

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.fill(analytic_omega(place.sublayers, place.options.get("output_change", "log")))

    def be_first(self) -> None:
        """The first omega is trained like the others."""
