"""Numba's compiler for functions that only kernels call: LLVM's language, and nothing after it.

See `kernel.part`. What is imported here is not part of Numba's public interface.
"""

from __future__ import annotations

from typing import Any

import numba
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.typed_passes import NativeLowering

make_function: Any = vars(numba)["_dynfunc"].make_function


class PartLibrary(JITCodeLibrary):
    """The code of a part: it is linked into kernels, and optimised and emitted as theirs."""

    def finalize(self):
        """Link what the part calls, and nothing else."""
        self._raise_if_finalized()
        for library in dict.fromkeys(self._linking_libraries):
            self._reload_init.update(library._reload_init)
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._finalize_dynamic_globals()
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class PartLowering(NativeLowering):
    """Numba's last pass, into a `PartLibrary`."""

    _name = "part_lowering"

    def run_pass(self, state):
        """Lower the function, and let Numba know it by a Python function that has no code."""
        state.library = PartLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        state.flags.no_compile = True
        super().run_pass(state)
        lowered = state["cr"]
        about = lowered.fndesc
        entry = make_function(
            about.lookup_module(), about.qualname, "", 0, lowered.env, (state.library,)
        )
        state.targetctx.insert_user_function(entry, about, [state.library])
        state["cr"] = lowered._replace(cfunc=entry)
        return True


class PartCompiler(CompilerBase):
    """Numba's passes, with `PartLowering` as the last but one."""

    def define_pipelines(self):
        """Return the one list of passes."""
        make, passes = DefaultPassBuilder, PassManager("part")
        for some in (
            make.define_untyped_pipeline(self.state),
            make.define_typed_pipeline(self.state),
            make.define_nopython_lowering_pipeline(self.state),
        ):
            passes.passes += [
                (PartLowering if kind is NativeLowering else kind, why) for kind, why in some.passes
            ]
        passes.finalize()
        return [passes]
