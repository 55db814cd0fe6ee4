import { findSocket } from '../config/config.ts'
import { SidecarError } from '../errors.ts'
import { type ControlClient, createControlClient } from '../observe/control-client.ts'
import type { Io } from './io.ts'

export interface SocketOptions {
  readonly config: string
  readonly socket?: string
}

/** The running sidecar: at --socket, or at admin.socket of the config. */
export function connectTo({ config, socket }: SocketOptions, io: Io): ControlClient {
  const path = socket ?? findSocket(config, io.env)
  if (path === undefined)
    throw new SidecarError('USAGE', `${config} names no admin.socket that could be used; set it, or give --socket`)
  return createControlClient(path)
}
