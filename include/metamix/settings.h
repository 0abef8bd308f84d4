/*
 * settings.h - every setting of every phase, from one list.
 *
 * The list below makes the structure, the command's options (an underscore becomes a
 * hyphen), their help and defaults, and config.json. X(type, field, default, groups, help);
 * types: INT, REAL, FLAG (--x, --no-x), TEXT (at most MIX_TEXT_MAX - 1 bytes).
 * Groups say which commands take the setting. "Published" quotes doc/method.md's source.
 */
#ifndef METAMIX_SETTINGS_H
#define METAMIX_SETTINGS_H

#include <stdbool.h>

#include "metamix/context.h"

enum { MIX_TEXT_MAX = 1024 };

enum {
    MIX_GROUP_NET = 1u << 0,      /* which network                        */
    MIX_GROUP_DATA = 1u << 1,     /* images, batches                      */
    MIX_GROUP_FLOAT = 1u << 2,    /* float training                       */
    MIX_GROUP_BITS = 1u << 3,     /* weight bits, how the others are found */
    MIX_GROUP_SELECT = 1u << 4,   /* bit selection phase                  */
    MIX_GROUP_FINETUNE = 1u << 5, /* weight training phase                */
    MIX_GROUP_RUN = 1u << 6       /* augmentation, seed, checkpoints: anything that trains */
};

#define MIX_SETTINGS_MAP(X)                                                                        \
    X(TEXT, arch, "mobilenet_v2", MIX_GROUP_NET,                                                   \
      "network: mobilenet_v2, mobilenet_v3_large, mobilenet_v3_small, resnet18, resnet34, "        \
      "resnet50, resnet101, or FILE.onnx with its weights")                                        \
    X(REAL, width, 1.0, MIX_GROUP_NET, "channel multiplier")                                       \
    X(TEXT, stem, "auto", MIX_GROUP_NET,                                                           \
      "first convolution: standard (stride 2), small (stride 1), auto (small up to 64 pixels)")    \
    X(TEXT, weights, "", MIX_GROUP_NET,                                                            \
      "file with torchvision's names to start from: .safetensors, or .pth of torch.save")          \
    X(TEXT, data, "", MIX_GROUP_DATA,                                                              \
      "data set: folder of IDX files, of train/ and val/, or a pack")                              \
    X(INT, image_size, 0, MIX_GROUP_DATA, "pixels, height = width; 0: as in the files")            \
    X(INT, resize, 0, MIX_GROUP_DATA,                                                              \
      "evaluation: shorter side, pixels, before the center crop; 0: 256 for an image size of 224") \
    X(TEXT, normalize, "auto", MIX_GROUP_DATA,                                                     \
      "what the network sees: imagenet (mean and deviation), symmetric (-1..1), unit (0..1), "     \
      "auto (as the network was trained; a new one: imagenet for three channels, else symmetric)") \
    X(INT, batch, 128, MIX_GROUP_DATA, "images in a mini-batch; published: 256")                   \
    X(TEXT, crop, "pad", MIX_GROUP_RUN,                                                            \
      "training crop: pad (shift inside a border of --crop-padding), resized "                     \
      "(RandomResizedCrop), none")                                                                 \
    X(INT, crop_padding, 4, MIX_GROUP_RUN, "border of the pad crop, pixels")                       \
    X(FLAG, flip, true, MIX_GROUP_RUN, "mirror half of the training images")                       \
    X(INT, cutout, 0, MIX_GROUP_RUN,                                                               \
      "training: side of a square that is blanked, pixels; 0: none")                               \
    X(FLAG, skip_bad_images, false, MIX_GROUP_DATA, "leave out files that cannot be decoded")      \
    X(INT, loader_threads, 1, MIX_GROUP_DATA, "threads that prepare batches ahead, 1..64")         \
    X(INT, train_limit, 0, MIX_GROUP_RUN, "use only so many training images; 0: all")              \
    X(INT, epochs, 30, MIX_GROUP_FLOAT, "epochs of float training")                                \
    X(TEXT, optimizer, "sgd", MIX_GROUP_FLOAT,                                                     \
      "float training: sgd (Nesterov momentum 0.9) or adam")                                       \
    X(REAL, lr, 0.05, MIX_GROUP_FLOAT, "peak learning rate; cosine to 0 per step")                 \
    X(REAL, warmup_epochs, 1.0, MIX_GROUP_FLOAT, "epochs of linear warm-up")                       \
    X(REAL, weight_decay, 4e-5, MIX_GROUP_FLOAT,                                                   \
      "on convolution and linear weights; published for MobileNet v2: 4e-5")                       \
    X(INT, weight_bits, 4, MIX_GROUP_BITS,                                                         \
      "bit-width of searched layers' weights, 2..8; 32: float")                                    \
    X(TEXT, search, "metamix", MIX_GROUP_BITS,                                                     \
      "how bits of activations are found: metamix; to compare it with: unfixed (bit search "       \
      "trains weights, too), joint (no bit-meta training, weights and bits together), greedy (by " \
      "what each layer's bits alone do to the float network's loss), random")                      \
    X(TEXT, candidates, "2,3,4,8", MIX_GROUP_SELECT,                                               \
      "candidate activation bit-widths; published for MobileNet v3: 3,4,8")                        \
    X(TEXT, target, "W4A3", MIX_GROUP_SELECT,                                                      \
      "budget: GBOPs of one image, or WxAy for the cost of that uniform network")                  \
    X(REAL, meta_warmup_epochs, 1.0, MIX_GROUP_SELECT,                                             \
      "epochs of bit-meta training alone; published: 1")                                           \
    X(REAL, search_epochs, 1.0, MIX_GROUP_SELECT,                                                  \
      "epochs that alternate bit-meta and bit-search training; published: 1")                      \
    X(REAL, meta_lr, 1e-4, MIX_GROUP_SELECT, "bit-meta training: Adam, constant; published: 1e-4") \
    X(REAL, meta_weight_decay, 5e-6, MIX_GROUP_SELECT, "on convolution and linear weights")        \
    X(TEXT, meta_branches, "all", MIX_GROUP_SELECT,                                                \
      "gradients kept in bit-meta training: all, or last (an ablation)")                           \
    X(REAL, alpha_lr, 0.0, MIX_GROUP_SELECT,                                                       \
      "bit-search training: Adam(0.5, 0.999); 0: 0.5 / steps, at least the published 1e-4")        \
    X(REAL, alpha_weight_decay, 1e-3, MIX_GROUP_SELECT, "on alpha")                                \
    X(REAL, lambda, 0.0, MIX_GROUP_SELECT,                                                         \
      "weight of |GBOPs - target| in the search loss; 0: 13.24 / target, as the published 4 is "   \
      "for its 3.31")                                                                              \
    X(INT, stage_a_epochs, 18, MIX_GROUP_FINETUNE,                                                 \
      "weight training with quantized activations; published: 18")                                 \
    X(INT, stage_b_epochs, 120, MIX_GROUP_FINETUNE,                                                \
      "weight training with weights quantized too; published: 120")                                \
    X(INT, stage_c_epochs, 0, MIX_GROUP_FINETUNE,                                                  \
      "then with batch norm's statistics fixed, re-estimated before by bn-batches; not published") \
    X(TEXT, finetune_optimizer, "adam", MIX_GROUP_FINETUNE,                                        \
      "adam (weight decay added to the gradients; published), adamw (weight decay apart: each "    \
      "step takes learning rate x decay of a weight)")                                             \
    X(REAL, finetune_lr, 5e-4, MIX_GROUP_FINETUNE, "cosine to 0 per step, for each stage")         \
    X(REAL, stage_c_lr, 5e-5, MIX_GROUP_FINETUNE, "the same for stage c")                          \
    X(REAL, finetune_weight_decay, 5e-6, MIX_GROUP_FINETUNE, "on convolution and linear weights")  \
    X(REAL, weight_step_rate, 0.0, MIX_GROUP_FINETUNE,                                             \
      "Adam moves the step size of a channel's weights by the learning rate x this x its own "     \
      "size, as if its logarithm were trained: small ones neither jump nor vanish; 0: by the "     \
      "learning rate, in stage c 4")                                                               \
    X(TEXT, teacher, "none", MIX_GROUP_SELECT | MIX_GROUP_FINETUNE,                                \
      "soft targets of a float network: none, self (what the run starts from), a run or "          \
      "checkpoint of metamix (also of larger images), FILE.onnx, or NETWORK:FILE, e.g. "           \
      "resnet101:weights.pth")                                                                     \
    X(REAL, clip_norm, 10.0, MIX_GROUP_RUN, "largest gradient norm; 0: no clipping")               \
    X(REAL, ema_decay, 0.0, MIX_GROUP_FLOAT | MIX_GROUP_FINETUNE,                                  \
      "evaluate and keep an exponential moving average of the weights with this decay per step, "  \
      "such as 0.999; 0: the weights themselves")                                                  \
    X(INT, val_interval, 1, MIX_GROUP_RUN,                                                         \
      "evaluate after every so many epochs and after the last; the best epoch is one of these")    \
    X(INT, bn_batches, 0, MIX_GROUP_RUN,                                                           \
      "training batches that re-estimate batch norm's statistics before each evaluation")          \
    X(TEXT, precision, "auto", MIX_GROUP_RUN,                                                      \
      "numbers of the training step: f32, bf16 (activations and gradients in bfloat16, products "  \
      "too where the CPU's are faster; sums, weights in float32), auto (bf16 with AVX2, else "     \
      "f32)")                                                                                      \
    X(REAL, checkpoint_minutes, 5.0, MIX_GROUP_RUN, "also save inside an epoch, this often")       \
    X(INT, seed, 1, MIX_GROUP_NET | MIX_GROUP_RUN, "random seed")

#define MIX_FIELD_INT(field)  int field;
#define MIX_FIELD_REAL(field) double field;
#define MIX_FIELD_FLAG(field) bool field;
#define MIX_FIELD_TEXT(field) char field[MIX_TEXT_MAX];

typedef struct mix_settings {
#define X(type, field, value, groups, help) MIX_FIELD_##type(field)
    MIX_SETTINGS_MAP(X)
#undef X
} mix_settings;

typedef enum mix_setting_type { MIX_INT, MIX_REAL, MIX_FLAG, MIX_TEXT } mix_setting_type;

/* One row of the list: how a command or a file reader walks the settings. */
typedef struct mix_setting {
    const char *name; /* the field's name */
    mix_setting_type type;
    size_t offset; /* in mix_settings  */
    unsigned groups;
    const char *help;
    const char *value; /* the default, as text */
} mix_setting;

MIX_API void mix_settings_init(mix_settings *settings);
MIX_API const mix_setting *mix_settings_list(size_t *count);

/* Sets one by its name (underscores or hyphens); numbers and on/off are parsed. MIX_EINVAL: no such
 * name, or a value that does not parse; ranges are checked when a run starts. */
MIX_API MIX_CHECKED mix_status mix_settings_set(mix_settings *settings, mix_ctx *ctx,
                                                const char *name, const char *value);
/* Sets those that a recipe names, {"settings": {name: value, ...}}; other members are free for
 * notes, so a run's config.json is a recipe too. After an error nothing has changed.
 * Errors: MIX_EIO, MIX_EFORMAT. */
MIX_API MIX_CHECKED mix_status mix_settings_load(mix_settings *settings, mix_ctx *ctx,
                                                 const char *path);
/* Writes the value as text into buffer; mix_settings_set() reads it back unchanged. */
MIX_API void mix_settings_get(const mix_settings *settings, const mix_setting *setting,
                              char *buffer, size_t size);

#endif
