// LOCKSTEP_CLONES before a function has its loops built for several instruction sets, of which the
// program's start chooses one. It is for whole numbers and plain IEEE arithmetic, which give the
// same bits with all. Other compilers and processors build such a function once, for the baseline.
// Internal to this folder.
#pragma once

// The sanitizers are not ready yet when the choice is made.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__AVX2__) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define LOCKSTEP_CLONES __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define LOCKSTEP_CLONES
#endif
