"""All kernels in one call: the kernel of rung 6, and what a plan does so that it is started sooner.

No kernel changes here, so the counts are those of rung 6. To start a kernel, the processor calls
the driver, and that takes some microseconds; for one image many layers compute no longer. A plan's
launches are recorded once, as a CUDA graph, and a run of the plan is one call
(`tinyresnext.ops.cuda.runtime.graph`). With large mini-batches it makes no difference.
"""

from __future__ import annotations

from rung_6_copies import launches as launches

TOGETHER = True  # the launches of a measurement are one graph; without this each is a call
