// Runs the CUDA kernels of the bank ops with the launches that the GPU gets.
#include "bank/gcl_kernels.cuh"
#include "bank/update_kernels.cuh"
#include "case_io.h"

namespace {

template <class S>
constexpr gcl::Storage storage_of = std::is_same_v<S, float>       ? gcl::Storage::float32
                                    : std::is_same_v<S, double>    ? gcl::Storage::float64
                                    : std::is_same_v<S, gcl::Half> ? gcl::Storage::float16
                                                                   : gcl::Storage::bfloat16;

// Half precision travels as its bits, in int32.
template <class S>
std::vector<S> bank_of(simt::Case& c) {
  const int64_t count = c.size("bank", 0) * c.size("bank", 1);
  std::vector<S> bank(count);
  for (int64_t i = 0; i < count; ++i) {
    if constexpr (sizeof(S) == 2) bank[i].bits = static_cast<uint16_t>(c.input<int32_t>("bank")[i]);
    else bank[i] = c.input<S>("bank")[i];
  }
  return bank;
}

template <class S, class Params>
void use_bank(simt::Case& c, S* bank, Params* p) {
  p->bank = bank;
  p->storage = storage_of<S>;
  p->num_rows = c.size("bank", 0);
  p->stride = p->dim = c.size("bank", 1);
}

template <class T, class S, class Params>
void write_bank(simt::Case& c, const std::vector<S>& bank, const Params& p) {
  T* out = c.output<T>("updated", {p.num_rows, p.dim});
  for (size_t i = 0; i < bank.size(); ++i) out[i] = static_cast<T>(gcl::widen(bank[i]));
}

template <class T, class S>
gcl::NceParams<T> nce(simt::Case& c, std::vector<S>& bank, int64_t batch, int64_t positives) {
  gcl::NceParams<T> p{};
  use_bank(c, bank.data(), &p);
  p.labels = c.input<int64_t>("labels");
  p.seed = c.input<int64_t>("key");
  p.batch = batch;
  p.positives = positives;
  p.count = c.integer("count");
  p.temperature = static_cast<T>(*c.input<double>("temperature"));
  p.with_grad = c.integer("with_grad") != 0;
  p.chunks = c.integer("chunks");
  p.sweep = static_cast<gcl::Sweep>(c.integer("sweep"));
  p.splits = c.integer("splits");
  p.last = c.output<uint32_t>("last", {batch});
  p.counts = c.workspace<uint32_t>({p.splits > 1 ? batch : 0, gcl::kDigits, gcl::kMostBins});
  p.part_max = c.workspace<T>({p.chunks, batch});
  p.part_sum = c.workspace<double>({p.chunks, batch});
  p.part_logit = c.workspace<double>({p.chunks, batch});
  p.part_mean = c.workspace<T>({p.chunks, batch, gcl::padded_dim(p.dim)});
  return p;
}

template <class T, class S>
struct Nce {
  void operator()(simt::Case& c) const {
    std::vector<S> bank = bank_of<S>(c);
    gcl::NceParams<T> p = nce<T, S>(c, bank, c.size("query", 0), c.size("positive", 1));
    p.query = c.input<T>("query");
    p.positive = p.first = c.input<int64_t>("positive");
    p.first_stride = p.positives;
    p.loss = c.output<T>("loss", {p.batch, p.positives});
    p.weight = c.output<T>("weight", {p.batch, p.positives});
    p.mean = c.output<T>("mean", {p.batch, p.dim});
    p.rows = c.output<T>("rows", {p.batch, p.positives, p.dim});
    if (c.integer("own") != 0) p.positive_query = c.input<T>("positive_query");
    gcl::launch_bank_nce<T, S>(p, GclStream{});
  }
};

// The selection alone, whatever the bank holds.
void choose(simt::Case& c) {
  gcl::NceParams<float> p{};
  p.labels = c.input<int64_t>("labels");
  p.seed = c.input<int64_t>("key");
  p.positive = p.first = c.input<int64_t>("positive");
  p.batch = c.size("positive", 0);
  p.first_stride = c.size("positive", 1);
  p.num_rows = c.size("labels", 0);
  p.count = c.integer("count");
  p.splits = c.integer("splits");
  p.last = c.output<uint32_t>("last", {p.batch});
  p.counts = c.workspace<uint32_t>({p.splits > 1 ? p.batch : 0, gcl::kDigits, gcl::kMostBins});
  gcl::launch_select(p, GclStream{});
}

template <class T, class S>
struct Gcl {
  void operator()(simt::Case& c) const {
    std::vector<S> bank = bank_of<S>(c);
    const int64_t batch = c.size("f", 0);
    gcl::NceParams<T> p = nce<T, S>(c, bank, batch, 1);
    gcl::GclParams<T> q{};
    q.photo = c.input<T>("f");
    q.view = c.input<T>("f_nv");
    q.index = p.positive = p.first = c.input<int64_t>("index");
    p.first_stride = 1;
    q.unit_photo = c.workspace<T>({batch, p.dim});
    q.unit_view = c.workspace<T>({batch, p.dim});
    q.photo_length = c.workspace<T>({batch});
    q.view_length = c.workspace<T>({batch});
    q.positive = c.output<int64_t>("positive", {batch, 3});
    q.dot = c.workspace<double>({batch, 3});
    q.terms = c.output<T>("terms", {3});
    q.view_grad = c.output<T>("view_grad", {batch, 3, p.dim});
    q.photo_grad = c.output<T>("photo_grad", {batch, p.dim});
    p.query = q.unit_view;
    gcl::UpdateParams<T> u{};
    const double momentum = *c.input<double>("momentum");
    if (momentum >= 0) {
      use_bank(c, bank.data(), &u);
      u.index = p.first;
      u.feature = q.photo;
      u.batch = batch;
      u.momentum = momentum;
      u.unit = true;
    }
    gcl::launch_gcl<T, S>(q, p, u, GclStream{});
    write_bank<T>(c, bank, p);
  }
};

template <class T, class S>
struct Update {
  void operator()(simt::Case& c) const {
    std::vector<S> bank = bank_of<S>(c);
    gcl::UpdateParams<T> p{};
    use_bank(c, bank.data(), &p);
    p.index = c.input<int64_t>("index");
    p.feature = c.input<T>("feature");
    p.batch = c.size("feature", 0);
    p.momentum = *c.input<double>("momentum");
    p.unit = c.integer("unit") != 0;
    p.hard = c.integer("hard") != 0;
    p.similarity = c.workspace<T>({p.batch});
    gcl::launch_bank_update<T, S>(p, GclStream{});
    write_bank<T>(c, bank, p);
  }
};

void draw(simt::Case& c) {
  const int64_t batch = c.size("index", 0);
  int64_t* out = c.output<int64_t>("drawn", {batch, 2});
  GCL_LAUNCH(gcl::draw_positives_kernel, batch, gcl::kRowThreads, 0, GclStream{}, c.input<int64_t>("labels"), c.size("labels", 0),
             c.input<int64_t>("index"), c.input<int64_t>("key"), out);
}

template <class T>
void backward(simt::Case& c) {
  gcl::GclBackwardParams<T> p{};
  p.grad = c.input<T>("grad");
  p.view_grad = c.input<T>("view_grad");
  p.photo_grad = c.input<T>("photo_grad");
  p.batch = c.size("photo_grad", 0);
  p.dim = c.size("photo_grad", 1);
  p.photo = c.output<T>("photo", {p.batch, p.dim});
  p.view = c.output<T>("view", {p.batch, p.dim});
  gcl::launch_gcl_backward(p, GclStream{});
}

// Float16 differs from bfloat16 in two functions of one number, so only the update, the smallest, is made for both.
template <template <class, class> class Run, bool HALF = false>
void by_type(simt::Case& c) {
  if (c.integer("real8") != 0) Run<double, double>{}(c);
  else if (c.type("bank") == "f4") Run<float, float>{}(c);
  else if (c.integer("brain") != 0) Run<float, gcl::BFloat16>{}(c);
  else if constexpr (HALF) Run<float, gcl::Half>{}(c);
  else c.stop("no kernel for float16 here");
}

}  // namespace

int main(int argc, char** argv) {
  return simt::drive(argc, argv,
                     {{"nce", by_type<Nce>},
                      {"gcl", by_type<Gcl>},
                      {"select", choose},
                      {"backward", [](simt::Case& c) { c.type("grad") == "f8" ? backward<double>(c) : backward<float>(c); }},
                      {"update", by_type<Update, true>},
                      {"draw", draw}});
}
