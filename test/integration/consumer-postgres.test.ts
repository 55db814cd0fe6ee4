import { test } from 'node:test'
import { skipReason } from '../support/components.ts'
import { postgresConsumer } from '../support/consumer-postgres.ts'
import { assertConsumer } from '../support/consumer-rig.ts'

const skip = await skipReason('postgres')

test('PostgreSQL takes two certificates while clients connect, each proven after an SSLRequest', { skip }, (t) =>
  assertConsumer(t, postgresConsumer(), { rotations: 2 }),
)
