#include "metamix/status.h"

const char *mix_status_name(mix_status status)
{
    switch (status) {
#define X(name, code, text)                                                                        \
    case MIX_##name:                                                                               \
        return "MIX_" #name;
        MIX_STATUS_MAP(X)
#undef X
    }
    return "MIX_?";
}

const char *mix_status_text(mix_status status)
{
    switch (status) {
#define X(name, code, text)                                                                        \
    case MIX_##name:                                                                               \
        return text;
        MIX_STATUS_MAP(X)
#undef X
    }
    return "unknown status";
}
