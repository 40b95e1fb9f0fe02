// Parameters of the overlaps of sparse rows. T is float or double; every array is contiguous. Sparse matrices are compressed
// rows: row i holds entries start[i] to start[i + 1], columns ascending. Rows are below 2^31.
//
// Row r of the result is row first + r * step of the matrix. It is written from room[r] on, into room that a first look at the
// sizes (RoomParams) says is enough; how much of it was used is in count. One pass: nothing is summed up twice.
#pragma once

#include <cstdint>

namespace gcl {

template <class T>
struct RoomParams {
  const int64_t* start;         // [N + 1]
  const int32_t* columns;       // [nnz]
  const T* values;              // [nnz]
  const int64_t* holder_start;  // [N + 1]
  int64_t rows;                 // N
  int64_t first, step, results;
  double max_distance;
  int64_t* room;  // [results]  at least as many as row r of the result can hold
};

template <class T>
struct OverlapParams {
  const int64_t* start;         // [N + 1]
  const int32_t* columns;       // [nnz]
  const T* values;              // [nnz]  not negative
  const int64_t* holder_start;  // [N + 1]  the matrix by columns: column n is held by
  const int32_t* holder_rows;   // [nnz]    these rows, ascending,
  const T* holder_values;       // [nnz]    with these values
  int64_t rows;                 // N
  int64_t first, step, results;
  double max_distance;  // pairs farther apart are left out; above 1: none is
  bool upper;           // only columns from the diagonal on (CPU)
  int64_t slots;        // of a block's table: a power of two, at least 64 (GPU)
  const int64_t* room;  // [results + 1]
  int64_t* count;       // [results]
  int32_t* indices;     // [room[results]]  ascending in each row
  T* distance;          // [room[results]]
};

}  // namespace gcl
