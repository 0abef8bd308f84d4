/*
 * status.h - what a call came to.
 *
 * Every function that can fail returns a mix_status; the sentence that says what
 * was expected, what was found and where is kept in the context
 * (mix_ctx_error()). The command maps each status to an exit code: the
 * numbers below are those codes and never change.
 */
#ifndef METAMIX_STATUS_H
#define METAMIX_STATUS_H

#define MIX_STATUS_MAP(X)                                                                          \
    X(OK, 0, "success")                                                                            \
    X(EINVAL, 2, "invalid argument")                                                               \
    X(ENOMEM, 3, "out of memory")                                                                  \
    X(EIO, 4, "input or output failed")                                                            \
    X(EFORMAT, 5, "malformed file")                                                                \
    X(ESHAPE, 6, "tensor shapes do not agree")                                                     \
    X(EUNSUPPORTED, 7, "not supported")                                                            \
    X(ENUMERIC, 8, "numbers stopped being finite")                                                 \
    X(EMISMATCH, 9, "a run was made with other settings, or verify found a difference")            \
    X(ESTOPPED, 10, "stopped on request; start again to go on")                                    \
    X(EBACKEND, 11, "a library that does the arithmetic failed")

typedef enum mix_status {
#define X(name, code, text) MIX_##name = code,
    MIX_STATUS_MAP(X)
#undef X
} mix_status;

#if defined(__cplusplus)
#define MIX_C extern "C"
#else
#define MIX_C
#endif
#if defined(__GNUC__)
#define MIX_CHECKED             __attribute__((warn_unused_result))
#define MIX_API                 MIX_C __attribute__((visibility("default")))
#define MIX_PRINTF(text, first) __attribute__((__format__(__printf__, text, first)))
#else
#define MIX_CHECKED
#define MIX_API MIX_C
#define MIX_PRINTF(text, first)
#endif

/* "MIX_EINVAL" and "invalid argument"; "MIX_?" and "unknown status" for others. */
MIX_API const char *mix_status_name(mix_status status);
MIX_API const char *mix_status_text(mix_status status);

#endif
