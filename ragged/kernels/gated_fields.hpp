// What gated residual networks are given, and what they learn as their products read it: see `gated.hpp`.
#pragma once

#include <array>
#include <cmath>

#include "simd.hpp"

namespace ragged {

struct Gated {
  Index features, tokens, inputs, hidden, size;
  bool stretched;  // whether the residual is
  double dropout;  // the share of `o` that is dropped
  std::uint64_t seed;
  Index numbers = 0;     // that a network's x is made of; 0 = x is given as it is
  bool softmax = false;  // whether the result is that of v

  // Where what a network reads of a token begins, and how far it is to that of the next token.
  Index place(Index feature, Index token) const { return (token * features + feature) * given(); }
  Index pitch() const { return features * given(); }
  Index given() const { return numbers ? numbers : inputs; }

  // body(number, first lane, lanes left of what it becomes) for each vector of what numbers become.
  template <class T, class Body>
  void each_number(Body&& body) const {
    for (Index k = 0, width = numbers ? inputs / numbers : 0; k < numbers; ++k)
      for (Index n = 0; n < width; n += LANES<T>) body(k, k * width + n, width - n);
  }
};

// What each token has, null = nothing, or the gradients: x (tokens, features, inputs or numbers), weights (tokens,
// features), added (tokens, hidden), residual (tokens, size).
template <class T>
struct Tokens {
  T *x, *weights, *added, *residual;
};
constexpr int TOKENS = 4;  // arrays of them

// What a network learns, each in an array of its own: matrices stand in the cache as products read them.
enum Field { EMBED, EMBED_BIAS, HIDDEN, HIDDEN_BIAS, OUTPUT, OUTPUT_BIAS, GATE, GATE_BIAS, STRETCH, INNER_WEIGHT,
             INNER_BIAS, WEIGHT, BIAS, FIELDS };
constexpr int ARRAYS = FIELDS;

// Where a field stands in its array `(features, each)`: (r, c) at r * row + c * column of each half.
struct Place {
  Index each, rows, row, columns, column, halves = 1;  // the gate's: a and g stand side by side

  bool is_matrix() const { return row > 0; }
  bool is_transposed() const { return row == 1 && column > 1; }
  Index begin(Index feature, Index half) const { return feature * each + half * (each / halves); }
  template <class T>
  Index width() const { return round_up(columns, LANES<T>); }
  template <class T>
  Index pitch() const { return halves * width<T>(); }
};

inline std::array<Place, FIELDS> places(const Gated& call) {
  const Index inputs = call.inputs, hidden = call.hidden, size = call.size;
  const Index deep = hidden ? size : 0, stretched = call.stretched ? size : 0;
  const auto vector = [](Index n) { return Place{n, 1, 0, n, 1}; };
  const Index embedded = call.numbers ? inputs : 0;
  return {{vector(embedded), vector(embedded),
           {hidden * inputs, inputs, 1, hidden, inputs}, vector(hidden),
           {size * hidden, hidden, 1, size, hidden}, vector(deep),
           {2 * size * size, size, 1, size, size, 2}, {2 * size, 1, 0, size, 1, 2},
           {stretched, inputs, stretched, stretched, 1}, vector(stretched), vector(stretched),
           vector(size), vector(size)}};
}

// Where they stand the other way round: the matrices alone.
template <class T>
std::array<Place, FIELDS> transposed(std::array<Place, FIELDS> all) {
  for (Place& place : all) place = {0, place.is_matrix() ? place.template pitch<T>() : 0, 0, place.rows, 0};
  return all;
}

// A network's fields, or their gradients, one after the other: each `(rows, halves, whole vectors of columns)`, 0
// beyond its columns.
template <class T>
class Fields {
 public:
  using Places = std::array<Place, FIELDS>;

  // Make room for all.
  void lay_out(const Places& all) {
    places = all;
    Index end = 0;
    for (int field = 0; field < FIELDS; ++field) {
      at[field] = end;
      end += round_up(numbers(field), Index(Aligned<T>::LINE) / Index(sizeof(T)));
    }
    room.resize(end);
  }

  T* operator[](int field) { return room.data() + at[field]; }
  const T* operator[](int field) const { return room.data() + at[field]; }

  void clear_vectors() {
    for (int field = 0; field < FIELDS; ++field)
      if (!places[field].is_matrix()) clear(field);
  }

  void read(const T* const* arrays, Index feature, int field) {
    const Place& place = places[field];
    if (field == STRETCH) return read_stretch(arrays[field] + place.begin(feature, 0));
    const Index width = place.template width<T>(), pitch = place.template pitch<T>();
    for (Index half = 0; half < place.halves; ++half) {
      const T* const from = arrays[field] + place.begin(feature, half);
      T* const to = (*this)[field] + half * width;
      if (place.is_transposed())
        copy_transposed(place.columns, place.rows, from, place.column, to, pitch, width);
      else
        copy_rows(place, from, place.row, to, pitch, width);
    }
  }

  // `of` are those of the networks, where these are gradients.
  void write(const T* const* of, T* const* arrays, Index feature, int field) const {
    const Place& place = places[field];
    if (field == STRETCH)
      return write_scale(of[field] + place.begin(feature, 0), arrays[field] + place.begin(feature, 0));
    const Index width = place.template width<T>(), pitch = place.template pitch<T>();
    for (Index half = 0; half < place.halves; ++half) {
      const T* const from = (*this)[field] + half * width;
      T* const to = arrays[field] + place.begin(feature, half);
      if (place.is_transposed())
        copy_transposed(place.rows, place.columns, from, pitch, to, place.column, place.rows);
      else
        copy_rows(place, from, pitch, to, place.row, place.columns);
    }
  }

  // Read a matrix of others the other way round.
  void turn(const Fields& others, int field) {
    if (!others.places[field].is_matrix()) return;
    const Index pitch = others.places[field].template pitch<T>(), turned = places[field].template pitch<T>();
    copy_transposed(others.places[field].rows, pitch, others[field], pitch, (*this)[field], turned, turned);
  }

  void add(const Fields& others, int field) {
    const T* const from = others[field];
    T* const to = (*this)[field];
    for (Index i = 0; i < numbers(field); ++i) to[i] += from[i];
  }

 private:
  Places places;
  std::array<Index, FIELDS> at;
  Room<T> room;

  void read_stretch(const T* scale) {
    T* const to = (*this)[STRETCH];
    const Index pitch = places[STRETCH].template pitch<T>();
    clear(STRETCH);
    interpolate(scale, [&](Index row, Index n, double share, double open) {
      to[row * pitch + n] = T(2 * share * open);
    });
  }

  void write_scale(const T* scale, T* gradient) const {
    const T* const from = (*this)[STRETCH];
    const Index pitch = places[STRETCH].template pitch<T>();
    std::fill_n(gradient, places[STRETCH].columns, T(0));
    interpolate(scale, [&](Index row, Index n, double share, double open) {
      gradient[n] += T(2 * share * open * (1 - open)) * from[row * pitch + n];
    });
  }

  // body(row, column, the row's share, the sigmoid of the column's scale) for the rows between which each column of
  // `stretch` lies, both ends aligned.
  template <class Body>
  void interpolate(const T* scale, Body&& body) const {
    const Index rows = places[STRETCH].rows, columns = places[STRETCH].columns;
    const double step = columns > 1 ? double(rows - 1) / double(columns - 1) : 0;
    for (Index n = 0; n < columns; ++n) {
      const double at = double(n) * step, open = 1 / (1 + std::exp(-double(scale[n])));
      const Index row = std::max<Index>(0, std::min(Index(at), rows - 2));
      body(row, n, 1 - (at - double(row)), open);
      if (rows > 1) body(row + 1, n, at - double(row), open);
    }
  }

  void clear(int field) { std::fill_n((*this)[field], numbers(field), T(0)); }

  Index numbers(int field) const { return places[field].rows * places[field].template pitch<T>(); }

  static void copy_rows(const Place& place, const T* from, Index pitch, T* to, Index to_pitch, Index room) {
    for (Index r = 0; r < place.rows; ++r, to += to_pitch)
      std::fill(std::copy_n(from + r * pitch, place.columns, to), to + room, T(0));
  }
};

}  // namespace ragged
