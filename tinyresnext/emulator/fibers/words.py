"""What a GPU has and a processor lacks, in LLVM: the words that translated kernels call.

A thread of a block is a fiber: a stack of its own, and a switch that saves the registers which a
call must keep (System V, x86-64) and takes another's. A fiber that needs the others (at a barrier,
at a shuffle) writes down its request and goes home: the scheduler answers when all have asked.
"""

from __future__ import annotations

from ...ops.cuda.runtime.kernel import MOST

PLACES = 4096  # numbers that a kernel can be given: NVIDIA's limit is 32,764 bytes
QUEUE = 128  # copies and group ends that a thread can have under way; more of them end early

# What a fiber asks the scheduler for: the first number of its request.
BARRIER, WARP, SHUFFLE, VOTE, COPIES, DONE, MULTIPLY, STOPPED = 1, 2, 3, 4, 5, 6, 7, 8

# NVIDIA's libdevice, where LLVM has the same function under another name. What is not here and not
# in PREDICATES is taken from the C library under its own name: `__nv_expf` is `expf`.
MATHEMATICS = {
    f"__nv_{name}{end}": (f"llvm.{word}.{kind}", kind, count)
    for end, kind in (("f", "f32"), ("", "f64"))
    for name, word, count in (
        ("sqrt", "sqrt", 1),
        ("fabs", "fabs", 1),
        ("floor", "floor", 1),
        ("ceil", "ceil", 1),
        ("trunc", "trunc", 1),
        ("rint", "rint", 1),
        ("copysign", "copysign", 2),
        ("fmax", "maxnum", 2),
        ("fmin", "minnum", 2),
        ("fma", "fma", 3),
    )
}
PREDICATES = """
define i32 @__nv_isnanf(float %x) alwaysinline {
  %is = fcmp uno float %x, 0.0
  %y = zext i1 %is to i32
  ret i32 %y
}
define i32 @__nv_isnand(double %x) alwaysinline {
  %is = fcmp uno double %x, 0.0
  %y = zext i1 %is to i32
  ret i32 %y
}
define i32 @__nv_isinff(float %x) alwaysinline {
  %size = call float @llvm.fabs.f32(float %x)
  %is = fcmp oeq float %size, 0x7FF0000000000000
  %y = zext i1 %is to i32
  ret i32 %y
}
define i32 @__nv_finitef(float %x) alwaysinline {
  %size = call float @llvm.fabs.f32(float %x)
  %is = fcmp olt float %size, 0x7FF0000000000000
  %y = zext i1 %is to i32
  ret i32 %y
}
define float @__nv_rsqrtf(float %x) alwaysinline {
  %root = call float @llvm.sqrt.f32(float %x)
  %y = fdiv float 1.0, %root
  ret float %y
}
"""


def one_to_one(item: tuple[str, tuple[str, str, int]]) -> str:
    """Return the definition of one function as a call of LLVM's."""
    name, (word, short, count) = item
    kind = {"f32": "float", "f64": "double"}[short]
    takes = ", ".join(f"{kind} %x{i}" for i in range(count))
    return f"""
declare {kind} @{word}({", ".join([kind] * count)})
define {kind} @{name}({takes}) alwaysinline {{
  %y = call {kind} @{word}({takes})
  ret {kind} %y
}}"""


def voting_barrier(name: str, how: int) -> str:
    """Return the definition of a barrier with a result."""
    return f"""
define i32 @word_barrier_{name}(i32 %value) alwaysinline {{
  %got = call {{i32, i1}} @fiber_ask(i32 {BARRIER}, i32 0, i32 {how}, i32 %value, i32 0, i32 0)
  %result = extractvalue {{i32, i1}} %got, 0
  ret i32 %result
}}"""


RUNTIME = f"""
@fiber = global i32 0
@block = global i32 0
@threads = global i32 0
@blocks = global i32 0
@late = global i32 0
@home = global ptr null
@saved = global [{MOST} x ptr] zeroinitializer
@asked = global [{MOST} x [6 x i32]] zeroinitializer
@answer = global [{MOST} x [2 x i32]] zeroinitializer
@queue = global [{MOST} x [{QUEUE} x [4 x i64]]] zeroinitializer
@queued = global [{MOST} x i32] zeroinitializer
@arguments = global [{PLACES} x i64] zeroinitializer
@fiber_shared = external constant ptr
declare void @fiber_run()

define void @fiber_switch(ptr %save, ptr %to) naked noinline {{
  call void asm sideeffect "pushq %rbp\\0Apushq %rbx\\0Apushq %r12\\0Apushq %r13\\0Apushq %r14\\0A\
pushq %r15\\0Amovq %rsp, (%rdi)\\0Amovq %rsi, %rsp\\0Apopq %r15\\0Apopq %r14\\0Apopq %r13\\0A\
popq %r12\\0Apopq %rbx\\0Apopq %rbp\\0Aretq", "~{{memory}}"()
  unreachable
}}
define void @fiber_prepare(i32 %thread, i64 %top) noinline {{
  %at = sub i64 %top, 64
  %return = sub i64 %top, 16
  %place = inttoptr i64 %return to ptr
  store ptr @fiber_start, ptr %place
  %slot = getelementptr [{MOST} x ptr], ptr @saved, i32 0, i32 %thread
  %pointer = inttoptr i64 %at to ptr
  store ptr %pointer, ptr %slot
  ret void
}}
define void @fiber_resume(i32 %thread) noinline {{
  store i32 %thread, ptr @fiber
  %slot = getelementptr [{MOST} x ptr], ptr @saved, i32 0, i32 %thread
  %to = load ptr, ptr %slot
  call void @fiber_switch(ptr @home, ptr %to)
  ret void
}}
define void @fiber_plain(i32 %thread) noinline {{
  store i32 %thread, ptr @fiber
  call void @fiber_run()
  ret void
}}
define void @fiber_start() noinline {{
  call void @fiber_run()
  %ignored = call {{i32, i1}} @fiber_ask(i32 {DONE}, i32 0, i32 0, i32 0, i32 0, i32 0)
  unreachable
}}
define {{i32, i1}} @fiber_ask(i32 %why, i32 %a, i32 %b, i32 %c, i32 %d, i32 %e) noinline {{
  %thread = load i32, ptr @fiber
  %p0 = getelementptr [{MOST} x [6 x i32]], ptr @asked, i32 0, i32 %thread, i32 0
  %p1 = getelementptr i32, ptr %p0, i32 1
  %p2 = getelementptr i32, ptr %p0, i32 2
  %p3 = getelementptr i32, ptr %p0, i32 3
  %p4 = getelementptr i32, ptr %p0, i32 4
  %p5 = getelementptr i32, ptr %p0, i32 5
  store i32 %why, ptr %p0
  store i32 %a, ptr %p1
  store i32 %b, ptr %p2
  store i32 %c, ptr %p3
  store i32 %d, ptr %p4
  store i32 %e, ptr %p5
  %slot = getelementptr [{MOST} x ptr], ptr @saved, i32 0, i32 %thread
  %to = load ptr, ptr @home
  call void @fiber_switch(ptr %slot, ptr %to)
  %q0 = getelementptr [{MOST} x [2 x i32]], ptr @answer, i32 0, i32 %thread, i32 0
  %q1 = getelementptr i32, ptr %q0, i32 1
  %value = load i32, ptr %q0
  %flag = load i32, ptr %q1
  %true = icmp ne i32 %flag, 0
  %half = insertvalue {{i32, i1}} poison, i32 %value, 0
  %both = insertvalue {{i32, i1}} %half, i1 %true, 1
  ret {{i32, i1}} %both
}}
define void @word_barrier() alwaysinline {{
  %ignored = call {{i32, i1}} @fiber_ask(i32 {BARRIER}, i32 0, i32 0, i32 0, i32 0, i32 0)
  ret void
}}
{"".join(map(voting_barrier, ("sum", "all", "any"), (1, 2, 3)))}
define void @word_warp(i32 %mask) alwaysinline {{
  %ignored = call {{i32, i1}} @fiber_ask(i32 {WARP}, i32 %mask, i32 0, i32 0, i32 0, i32 0)
  ret void
}}
define {{i32, i1}} @word_shuffle(i32 %mask, i32 %mode, i32 %v, i32 %b, i32 %c) alwaysinline {{
  %got = call {{i32, i1}} @fiber_ask(i32 {SHUFFLE}, i32 %mask, i32 %mode, i32 %v, i32 %b, i32 %c)
  ret {{i32, i1}} %got
}}
define {{i32, i1}} @word_vote(i32 %mask, i32 %mode, i1 %v) alwaysinline {{
  %wide = zext i1 %v to i32
  %got = call {{i32, i1}} @fiber_ask(i32 {VOTE}, i32 %mask, i32 %mode, i32 %wide, i32 0, i32 0)
  ret {{i32, i1}} %got
}}
define void @word_nothing() alwaysinline {{
  fence seq_cst
  ret void
}}
define i32 @word_zero() alwaysinline {{
  ret i32 0
}}
define i32 @word_one() alwaysinline {{
  ret i32 1
}}
define i32 @word_warpsize() alwaysinline {{
  ret i32 32
}}
define i32 @word_laneid() alwaysinline {{
  %thread = load i32, ptr @fiber
  %lane = and i32 %thread, 31
  ret i32 %lane
}}
define i32 @word_tid() alwaysinline {{
  %value = load i32, ptr @fiber
  ret i32 %value
}}
define i32 @word_ctaid() alwaysinline {{
  %value = load i32, ptr @block
  ret i32 %value
}}
define i32 @word_ntid() alwaysinline {{
  %value = load i32, ptr @threads
  ret i32 %value
}}
define i32 @word_nctaid() alwaysinline {{
  %value = load i32, ptr @blocks
  ret i32 %value
}}
define void @copy_at_once(ptr %to, ptr %of, i32 %taken, i32 %size) alwaysinline {{
  %whole = icmp eq i32 %taken, %size
  br i1 %whole, label %copy, label %part
copy:
  call void @llvm.memcpy.p0.p0.i32(ptr %to, ptr %of, i32 %size, i1 false)
  ret void
part:
  call void @llvm.memset.p0.i32(ptr %to, i8 0, i32 %size, i1 false)
  call void @llvm.memcpy.p0.p0.i32(ptr %to, ptr %of, i32 %taken, i1 false)
  ret void
}}
define void @copy_later(i64 %to, i64 %of, i32 %taken, i32 %size) noinline {{
  %thread = load i32, ptr @fiber
  %counter = getelementptr [{MOST} x i32], ptr @queued, i32 0, i32 %thread
  %before = load i32, ptr %counter
  %full = icmp uge i32 %before, {QUEUE}
  br i1 %full, label %flush, label %keep
flush:
  %ignored = call {{i32, i1}} @fiber_ask(i32 {COPIES}, i32 -1, i32 0, i32 0, i32 0, i32 0)
  br label %keep
keep:
  %n = load i32, ptr %counter
  %row = getelementptr [{MOST} x [{QUEUE} x [4 x i64]]], ptr @queue, i32 0, i32 %thread
  %e0 = getelementptr [4 x i64], ptr %row, i32 %n
  %e1 = getelementptr i64, ptr %e0, i32 1
  %e2 = getelementptr i64, ptr %e0, i32 2
  %e3 = getelementptr i64, ptr %e0, i32 3
  %wide_taken = zext i32 %taken to i64
  %wide_size = zext i32 %size to i64
  store i64 %to, ptr %e0
  store i64 %of, ptr %e1
  store i64 %wide_taken, ptr %e2
  store i64 %wide_size, ptr %e3
  %more = add i32 %n, 1
  store i32 %more, ptr %counter
  ret void
}}
define void @word_copy(i32 %to, i64 %of, i32 %taken, i32 %size) alwaysinline {{
  %any = load ptr, ptr @fiber_shared
  %base = ptrtoint ptr %any to i64
  %low = trunc i64 %base to i32
  %apart = sub i32 %to, %low
  %wide = sext i32 %apart to i64
  %place = add i64 %base, %wide
  %late = load i32, ptr @late
  %later = icmp ne i32 %late, 0
  br i1 %later, label %queue, label %now
queue:
  call void @copy_later(i64 %place, i64 %of, i32 %taken, i32 %size)
  ret void
now:
  %there = inttoptr i64 %place to ptr
  %here = inttoptr i64 %of to ptr
  call void @copy_at_once(ptr %there, ptr %here, i32 %taken, i32 %size)
  ret void
}}
define void @word_commit() alwaysinline {{
  %late = load i32, ptr @late
  %later = icmp ne i32 %late, 0
  br i1 %later, label %queue, label %now
queue:
  call void @copy_later(i64 0, i64 0, i32 0, i32 0)
  ret void
now:
  ret void
}}
define void @word_wait(i32 %groups) alwaysinline {{
  %late = load i32, ptr @late
  %later = icmp ne i32 %late, 0
  br i1 %later, label %ask, label %now
ask:
  %ignored = call {{i32, i1}} @fiber_ask(i32 {COPIES}, i32 %groups, i32 0, i32 0, i32 0, i32 0)
  ret void
now:
  ret void
}}
{"".join(map(one_to_one, MATHEMATICS.items()))}
{PREDICATES}
declare void @llvm.memcpy.p0.p0.i32(ptr, ptr, i32, i1)
declare void @llvm.memset.p0.i32(ptr, i8, i32, i1)
"""
