"""The query field (QNeRF): a radiance-field-like model of attention queries that makes edited views agree."""
