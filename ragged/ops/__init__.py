"""Operations on ragged batches: alignment, masks, packing."""
