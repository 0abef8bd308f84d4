#include "profile_table.h"

#include <inttypes.h>
#include <math.h>

#include "table.h"

static cell milliseconds(double seconds)
{
    return cell_number(1e3 * seconds, 2);
}

static void layer_row(struct table *t, const mix_profile *p, const mix_layer_profile *l)
{
    const double both = l->forward + l->backward;
    table_row(t, "%s\t%s\t%d x %d\t%s\t%s\t%.1f%%\t%s\t%s\t%s\t%s\t%s", l->layer->name,
              l->layer->kind, l->layer->out_size, l->layer->out_size, milliseconds(l->forward).text,
              milliseconds(l->backward).text, 100 * both / p->seconds, milliseconds(l->bare).text,
              milliseconds(l->floor).text, cell_number(both / l->floor, 2).text,
              cell_number(1e-6 * l->bytes, 1).text, cell_number(1e-9 * l->bytes / both, 1).text);
}

static void part_row(struct table *t, const mix_profile *p, const char *name, double seconds)
{
    table_row(t, "%s\t\t\t%s\t\t%.1f%%", name, milliseconds(seconds).text,
              100 * seconds / p->seconds);
}

void profile_print(const mix_profile *p, FILE *out)
{
    struct table t;
    double layers = 0;
    for (int l = 0; l < p->n_layers; l++)
        layers += p->layers[l].forward + p->layers[l].backward;
    const double named = layers + p->weights + p->graph + p->waited + p->teacher;
    fprintf(out,
            "%s: a step of %s ms (mean of %" PRId64 ") is %s times the floor of %s ms: bare "
            "convolutions %s, %s MB at %s GB/s %s\n",
            p->phase, milliseconds(p->seconds).text, p->steps,
            cell_number(p->seconds / p->floor, 2).text, milliseconds(p->floor).text,
            milliseconds(p->bare).text, cell_number(1e-6 * p->bytes, 0).text,
            cell_number(1e-9 * p->copies, 1).text, milliseconds(p->floor - p->bare).text);
    table_begin(&t, "llrrrrrrrrr");
    table_row(&t, "layer\tkind\toutput\tforward\tbackward\tshare\tbare\tfloor\tx floor\tMB\tGB/s");
    for (int l = 0; l < p->n_layers; l++)
        layer_row(&t, p, &p->layers[l]);
    table_row(&t, "all layers\t\t\t%s\t\t%.1f%%\t%s\t%s\t%s\t%s\t%s", milliseconds(layers).text,
              100 * layers / p->seconds, milliseconds(p->bare).text, milliseconds(p->floor).text,
              cell_number(layers / p->floor, 2).text, cell_number(1e-6 * p->bytes, 1).text,
              cell_number(1e-9 * p->bytes / layers, 1).text);
    part_row(&t, p, "weights: quantize, pack", p->weights);
    part_row(&t, p, "additions, pools, gates", p->graph);
    part_row(&t, p, "teacher", p->teacher);
    part_row(&t, p, "waiting for images", p->waited);
    part_row(&t, p, "loss, optimizer, the rest", fmax(0, p->seconds - named));
    table_end(&t, out);
    fflush(out);
}
