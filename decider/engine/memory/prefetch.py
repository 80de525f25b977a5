"""The processor's instruction to fetch a cache line ahead of its use, for compiled code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

# numba's tools for writing LLVM instructions carry no types
instruction: Callable[[Callable[..., Any]], Any] = intrinsic
cg: Any = cgutils


@instruction
def prefetch(_: Any, array: Any, at: Any) -> Any:
    """Begin to fetch the line of an element of a C-contiguous array, and wait for nothing.

    Compiled code calls `prefetch(array, at)`; `at` counts flat.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cg.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        place = builder.bitcast(builder.gep(data, [args[1]]), byte)
        # for writing, because every slot that is read is written too; 3 keeps the line in all
        # caches
        to_write, keep, as_data = (
            ir.Constant(number, 1),
            ir.Constant(number, 3),
            ir.Constant(number, 1),
        )
        builder.call(function, [place, to_write, keep, as_data])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate
