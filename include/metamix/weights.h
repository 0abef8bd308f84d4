/*
 * weights.h - a network's parameters from a file of another tool.
 *
 * The file is recognised by what it holds: .safetensors, or what PyTorch's torch.save() wrote of a
 * state dict, in its ZIP form or the one before 1.6. Names are torchvision's; a dict inside
 * "state_dict", "model" or "model_state_dict" and names behind "module." are found too. Nothing in
 * a file is executed.
 */
#ifndef METAMIX_WEIGHTS_H
#define METAMIX_WEIGHTS_H

#include "metamix/graph.h"

typedef struct mix_weights_info {
    int taken;           /* parameters of the graph that the file gave                */
    int unused;          /* tensors of the file that the graph has no use for         */
    int classes;         /* of the file's classifier; 0: it has none, under the layer's name  */
    bool new_classifier; /* the last layer keeps its values: the file has none for as
                            many classes */
} mix_weights_info;

/*
 * Reads the file into the graph's values, which are undefined after a failure. Values of 16, 32 or
 * 64-bit floating point become float32. Logged are a classifier that is left as it was, and the
 * names of unused tensors (but for batch norm's counters). info may be NULL. Errors: MIX_EIO;
 * MIX_EFORMAT for a malformed file, for missing tensors, with their names, for a tensor of another
 * type or shape, and for a value that is not finite (or negative, for a running variance);
 * MIX_EUNSUPPORTED; MIX_ENOMEM.
 */
MIX_API MIX_CHECKED mix_status mix_weights_load(mix_graph *graph, const char *path,
                                                mix_weights_info *info);

#endif
