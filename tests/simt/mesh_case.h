// The mesh of a case: verts [B, V, 3] and faces [F, 3], of any types.
#pragma once

#include "case_io.h"

namespace simt {

// Fills what the parameters of every op on a mesh have.
template <class T, class Index, class Params>
void read_mesh(const Case& c, Params* p) {
  p->verts = c.input<T>("verts");
  p->faces = c.input<Index>("faces");
  p->batch = c.size("verts", 0);
  p->num_verts = c.size("verts", 1);
  p->num_faces = c.size("faces", 0);
}

// Calls f(T{}, Index{}).
template <class F>
void with_mesh(const Case& c, F&& f) {
  with_real(c, "verts", [&](auto real) { with_index(c, "faces", [&](auto index) { f(real, index); }); });
}

}  // namespace simt
