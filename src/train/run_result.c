/*
 * train/run_result.c - result.json: written when a job is done, read when it is asked for again.
 */
#include "train/run_folder.h"

#include <stdlib.h>
#include <string.h>

/* null when it counts no images */
static json_t *json_accuracy(const mix_accuracy *a)
{
    if (a->images == 0)
        return json_null();
    return json_pack("{s:o, s:o, s:o, s:I}", "top1", mix__json_real(a->top1), "top5",
                     mix__json_real(a->top5), "loss", mix__json_real(a->loss), "images",
                     (json_int_t)a->images);
}

static json_t *phases_json(const mix_result *r)
{
    json_t *list = json_array();
    for (int i = 0; i < r->n_phases; i++)
        if (!mix__json_append(list,
                              json_pack("{s:s, s:i, s:f}", "phase", r->phases[i].phase, "epochs",
                                        r->phases[i].epochs, "seconds", r->phases[i].seconds)))
            return NULL;
    return list;
}

static json_t *bits_json(const mix_graph *graph, const mix_result *r)
{
    if (!r->bits)
        return json_null();
    json_t *list = json_array();
    for (int l = 0; l < r->n_layers; l++) {
        mix_layer_info info;
        mix_graph_layer_get(graph, l, &info);
        if (!mix__json_append(list,
                              json_pack("{s:s, s:i, s:i}", "name", info.name, "weight",
                                        r->bits[l].weight, "activation", r->bits[l].activation)))
            return NULL;
    }
    return list;
}

mix_status mix__run_result_write(struct mix__run_folder *f, const char *job, const mix_graph *graph,
                                 const mix_result *r)
{
    mix_graph_info info;
    mix_graph_info_get(graph, &info);
    json_t *json = json_pack(
        "{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:f, s:o, s:I, s:I, s:o}", "job", job,
        "network", info.name, "float", json_accuracy(&r->float_accuracy), "best",
        json_accuracy(&r->best), "last", json_accuracy(&r->last), "gbops", mix__json_real(r->gbops),
        "target_gbops", mix__json_real(r->target_gbops), "mean_activation_bits",
        mix__json_real(r->mean_activation_bits), "phases", phases_json(r), "seconds", r->seconds,
        "data_wait", mix__json_real(r->data_wait), "plan_bytes", (json_int_t)r->plan_bytes,
        "peak_bytes", (json_int_t)r->peak_bytes, "bits", bits_json(graph, r));
    return mix__json_save(f->ctx, f->result, json, 17);
}

/* ---- reading; a missing or odd value reads as NaN or 0, a file that is not ours fails ---- */

static int64_t integer_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static mix_accuracy accuracy_of(const json_t *json, const char *key)
{
    const json_t *a = json_object_get(json, key);
    return (mix_accuracy){ mix__json_real_of(a, "top1"), mix__json_real_of(a, "top5"),
                           mix__json_real_of(a, "loss"), integer_of(a, "images") };
}

static mix_status read_bits(struct mix__run_folder *f, const json_t *list, mix_result *r)
{
    if (!json_is_array(list))
        return MIX_OK;
    r->n_layers = (int)json_array_size(list);
    r->bits = calloc((size_t)r->n_layers + 1, sizeof *r->bits);
    if (!r->bits)
        return mix__fail(f->ctx, MIX_ENOMEM, "out of memory for %d layers", r->n_layers);
    for (int l = 0; l < r->n_layers; l++) {
        const json_t *row = json_array_get(list, (size_t)l);
        r->bits[l] =
            (mix_layer_bits){ (int)integer_of(row, "weight"), (int)integer_of(row, "activation") };
    }
    return MIX_OK;
}

static void read_phases(const json_t *list, mix_result *r)
{
    const json_t *row;
    size_t i;
    json_array_foreach(list, i, row)
    {
        const char *name = json_string_value(json_object_get(row, "phase"));
        if (i == MIX_COUNT(r->phases))
            return;
        mix_phase_time *p = &r->phases[r->n_phases++];
        snprintf(p->phase, sizeof p->phase, "%s", name ? name : "");
        p->epochs = (int)integer_of(row, "epochs");
        p->seconds = mix__json_real_of(row, "seconds");
    }
}

mix_status mix__run_result_read(struct mix__run_folder *f, mix_result *r)
{
    json_t *json;
    *r = (mix_result){ 0 };
    MIX_TRY(mix__json_load(f->ctx, f->result, &json));
    r->float_accuracy = accuracy_of(json, "float");
    r->best = accuracy_of(json, "best");
    r->last = accuracy_of(json, "last");
    r->gbops = mix__json_real_of(json, "gbops");
    r->target_gbops = mix__json_real_of(json, "target_gbops");
    r->mean_activation_bits = mix__json_real_of(json, "mean_activation_bits");
    r->seconds = mix__json_real_of(json, "seconds");
    r->data_wait = mix__json_real_of(json, "data_wait");
    r->plan_bytes = (uint64_t)integer_of(json, "plan_bytes");
    r->peak_bytes = (uint64_t)integer_of(json, "peak_bytes");
    read_phases(json_object_get(json, "phases"), r);
    const mix_status status = read_bits(f, json_object_get(json, "bits"), r);
    json_decref(json);
    return status;
}
