"""Signals while fibers run: what would end the process, or wait for ever, ends one launch.

Kernels run as code of this processor, with nobody in between. Where one reads memory that is not
there, or is interrupted, the signal's handler leaves the fiber for good, and the scheduler goes
home. The handler does so only on a fiber's own stack; other signals are what they were.
"""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ...ops.cuda.runtime.kernel import MOST
from .words import STOPPED

# Windows, where no fiber runs, has no SIGBUS, and this can be imported there all the same.
FATAL = signal.SIGSEGV, getattr(signal, "SIGBUS", signal.SIGSEGV), signal.SIGFPE
NODEFER, FLAGS, SIZE = 0x40000000, 136, 152  # of `struct sigaction` on Linux on x86-64

STOPS = f"""
@stopped = global i32 0
@low = global i64 0
@high = global i64 0
@apart = global [5 x i64] zeroinitializer
@left = global ptr null
declare ptr @signal(i32, ptr)

define void @fiber_stop(i32 %number) noinline {{
  %mark = alloca i64
  %here = ptrtoint ptr %mark to i64
  %low = load i64, ptr @low
  %high = load i64, ptr @high
  %above = icmp ugt i64 %here, %low
  %below = icmp ult i64 %here, %high
  %inside = and i1 %above, %below
  %interrupt = icmp eq i32 %number, {signal.SIGINT.value}
  %counts = or i1 %inside, %interrupt
  br i1 %counts, label %note, label %die
note:
  store volatile i32 %number, ptr @stopped
  br i1 %inside, label %leave, label %return
leave:
  %thread = load i32, ptr @fiber
  %asked = getelementptr [{MOST} x [6 x i32]], ptr @asked, i32 0, i32 %thread
  store volatile i32 {STOPPED}, ptr %asked
  %home = load ptr, ptr @home
  call void @fiber_switch(ptr @left, ptr %home)
  unreachable
die:
  %ignored = call ptr @signal(i32 %number, ptr null)
  ret void
return:
  ret void
}}
define void @fiber_aside() noinline {{
  %f = load ptr, ptr @apart
  %p1 = getelementptr [5 x i64], ptr @apart, i32 0, i32 1
  %p2 = getelementptr [5 x i64], ptr @apart, i32 0, i32 2
  %p3 = getelementptr [5 x i64], ptr @apart, i32 0, i32 3
  %p4 = getelementptr [5 x i64], ptr @apart, i32 0, i32 4
  %a1 = load i64, ptr %p1
  %a2 = load i64, ptr %p2
  %a3 = load i64, ptr %p3
  %a4 = load i64, ptr %p4
  %run = ptrtoint ptr @fiber_plain to i64
  %ignored = call i64 %f(i64 %run, i64 %a1, i64 %a2, i64 %a3, i64 %a4)
  %home = load ptr, ptr @home
  call void @fiber_switch(ptr @left, ptr %home)
  unreachable
}}
define void @fiber_apart(i64 %top) noinline {{
  %at = sub i64 %top, 64
  %return = sub i64 %top, 16
  %place = inttoptr i64 %return to ptr
  store ptr @fiber_aside, ptr %place
  %pointer = inttoptr i64 %at to ptr
  call void @fiber_switch(ptr @home, ptr %pointer)
  ret void
}}
"""


@contextmanager
def caught(handler: int) -> Iterator[None]:
    """Let a handler, given by its address, have the signals in the ``with`` block.

    Python gives interrupts to its main thread alone. Where the program ignores them, or has a
    handler of its own, they stay what they are.
    """
    library = ctypes.CDLL(None)
    main = threading.current_thread() is threading.main_thread()
    interrupts = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    new = ctypes.create_string_buffer(SIZE)
    ctypes.c_uint64.from_buffer(new, 0).value = handler
    ctypes.c_uint32.from_buffer(new, FLAGS).value = NODEFER
    before = []
    for number in (*FATAL, signal.SIGINT) if interrupts else FATAL:
        old = ctypes.create_string_buffer(SIZE)
        library.sigaction(int(number), new, old)
        before.append((int(number), old))
    try:
        yield
    finally:
        for which, old in before:
            library.sigaction(which, old, None)
