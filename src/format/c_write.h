/*
 * format/c_write.h - an integer network as plain C.
 */
#ifndef METAMIX_FORMAT_C_WRITE_H
#define METAMIX_FORMAT_C_WRITE_H

#include "model/net.h"

/*
 * NAME.c and, before it, NAME.h for a path that ends with NAME.c: C11 and libc's headers alone, no
 * allocation, one static arena; its results are the integer runtime's bit for bit. Names begin
 * with NAME, in which '-' and '.' become '_'. The sizes are logged. Errors: MIX_EINVAL (no C name),
 * MIX_EUNSUPPORTED (a side above 65535), MIX_EIO, MIX_ENOMEM.
 */
mix_status mix__c_write(const struct mix__net *net, const char *path) MIX_CHECKED;

#endif
