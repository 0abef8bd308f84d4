/*
 * model.h - a network in the integer runtime, and how images become its input.
 */
#ifndef TOOLS_MODEL_H
#define TOOLS_MODEL_H

#include "command_job.h"

struct model {
    mix_runtime *rt;
    mix_runtime_info info;
    void *bytes; /* of a network that was no .mix file, else NULL */
};

bool model_is_file(const char *path); /* by its ending, .mix */

/* from is a .mix file, or a run or checkpoint with quantized weights. Gives the exit code, and
 * tells why; close it also then. */
int model_open(struct model *model, struct job *job, const char *from);
void model_close(struct model *model, struct job *job);

/* Options for its images, for as long as the model is open; resize as in mix_data_options. Gives
 * the exit code, and tells why. */
int model_images(const struct model *model, const struct options *options,
                 mix_data_options *images);

/* Zeroed room for n images and their logits, for free() also after a failure; gives the exit code,
 * and tells why. */
int model_room(const struct model *model, const struct options *options, size_t n, float **images,
               float **logits);

#endif
