import { rmSync } from 'node:fs'
import * as grpc from '@grpc/grpc-js'
import protobuf from 'protobufjs'
import type { Issued, TestCa } from './ca.ts'

/** The X.509-SVID profile, from workloadapi.proto of the SPIFFE specification. */
const PROTO = `
syntax = "proto3";
message X509SVIDRequest {}
message X509SVIDResponse {
  repeated X509SVID svids = 1;
  repeated bytes crl = 2;
  map<string, bytes> federated_bundles = 3;
}
message X509SVID {
  string spiffe_id = 1;
  bytes x509_svid = 2;
  bytes x509_svid_key = 3;
  bytes bundle = 4;
  string hint = 5;
}`
const Response = protobuf.parse(PROTO, { keepCase: true }).root.lookupType('X509SVIDResponse')

export interface X509Svid {
  readonly spiffe_id: string
  readonly x509_svid: Buffer
  readonly x509_svid_key: Buffer
  readonly bundle: Buffer
  readonly hint?: string
}

/** What every caller gets, now and until it changes: identities, bytes that are no message, or a status of gRPC. */
export type Answer =
  | { readonly svids: readonly X509Svid[]; readonly federated?: Readonly<Record<string, Buffer>> }
  | { readonly bytes: Buffer }
  | { readonly status: grpc.status; readonly message: string }

/**
 * A SPIFFE Workload API on a unix socket, by the gRPC and the protobuf of others: it demands the security header, answers at once, and pushes
 * whatever is given later to all who listen.
 */
export interface WorkloadApi extends AsyncDisposable {
  readonly socket: string
  /** Streams that are open. */
  readonly listeners: () => number
  /** Calls so far. */
  readonly calls: () => number
  /** From now on this is the answer. */
  give(answer: Answer): void
  /** Breaks every connection and lets nobody in. */
  stop(): Promise<void>
  start(): Promise<void>
}

export async function startWorkloadApi(path: string, first: Answer): Promise<WorkloadApi> {
  let server: grpc.Server | undefined
  let answer = first
  let calls = 0
  const open = new Set<grpc.ServerWritableStream<object, Answer>>()
  const send = (call: grpc.ServerWritableStream<object, Answer>) => {
    if ('status' in answer)
      call.emit('error', Object.assign(new Error(answer.message), { code: answer.status, details: answer.message }))
    else call.write(answer)
  }
  const fetchX509Svid = (call: grpc.ServerWritableStream<object, Answer>) => {
    calls += 1
    if (call.metadata.get('workload.spiffe.io')[0] !== 'true') {
      const details = 'security header missing from request'
      call.emit('error', Object.assign(new Error(details), { code: grpc.status.INVALID_ARGUMENT, details }))
      return
    }
    open.add(call)
    call.once('close', () => open.delete(call)).once('cancelled', () => open.delete(call))
    send(call)
  }
  const start = async () => {
    rmSync(path, { force: true })
    const starting = new grpc.Server()
    starting.addService(SERVICE, { fetchX509Svid })
    await new Promise<void>((resolve, reject) =>
      starting.bindAsync(`unix:${path}`, grpc.ServerCredentials.createInsecure(), (error) =>
        error ? reject(error) : resolve(),
      ),
    )
    server = starting
  }
  const stop = async () => {
    server?.forceShutdown()
    server = undefined
    open.clear()
  }
  await start()
  return {
    socket: `unix://${path}`,
    listeners: () => open.size,
    calls: () => calls,
    give: (next) => {
      answer = next
      for (const call of open) send(call)
    },
    start,
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

const SERVICE: grpc.ServiceDefinition = {
  fetchX509Svid: {
    path: '/SpiffeWorkloadAPI/FetchX509SVID',
    requestStream: false,
    responseStream: true,
    requestSerialize: () => Buffer.alloc(0),
    requestDeserialize: () => ({}),
    responseSerialize: (answer: Answer) =>
      'bytes' in answer
        ? answer.bytes
        : Buffer.from(
            Response.encode(
              Response.fromObject(
                'svids' in answer ? { svids: answer.svids, federated_bundles: answer.federated ?? {} } : {},
              ),
            ).finish(),
          ),
    responseDeserialize: () => ({}),
  },
}

/** As an agent hands it out: DER, the leaf first. */
export function svidOf(id: string, { bundle }: Issued, roots: readonly TestCa[], hint = ''): X509Svid {
  return {
    spiffe_id: id,
    x509_svid: Buffer.concat([bundle.leaf, ...bundle.intermediates].map(({ raw }) => raw)),
    x509_svid_key: bundle.key.export({ type: 'pkcs8', format: 'der' }),
    bundle: Buffer.concat(roots.map(({ root }) => root.raw)),
    hint,
  }
}
