/** Nanoseconds since the Unix epoch. Clients compare our times with their own clock to the nanosecond. */
export interface Clock {
  now(): bigint;
}
