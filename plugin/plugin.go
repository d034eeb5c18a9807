// Package plugin is the control plane between hosts and the process that serves a layout: Go types
// in, Go types out, gRPC between them, and go-plugin for the launch and the handshake. A lease is a connection
// without gRPC, which is all that most hosts need.
//
// Who serves a layout implements [Controller] and answers with [ServeControl] at the layout's control
// socket; a host gets a Controller there from [Connect]. What crosses is control only. Blobs travel over
// HTTP, at the address that a [Lease] opens.
//
// Errors cross as the contract's: errors.Is(err, berth.ErrLayoutInUse) holds in the host although
// the error was raised in the plugin.
//
// # Launch
//
// go-plugin starts the binary with a cookie in its environment and the versions that the host speaks, and
// waits for one line, which the plugin writes with [Announce] when it answers at the control socket. Which
// layout to serve is in [ConfigVariable]. A plugin that cannot serve it says why in a record of its log,
// which [StartError] reads, and ends. From then on the host that started the plugin is like all others:
// go-plugin's own socket, which also leads to its broker, its stdio and its shutdown, is used by nobody.
//
// # Versions
//
// Each end speaks a range of [Protocols] and tells the other which. Two that have none in common say so,
// both versions named, wherever they meet: at the launch and at the control socket.
package plugin

import (
	"context"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/control"
)

// The errors of a plugin that a host may branch on.
var (
	// ErrEnding: the registry takes no more leases and calls, and will be gone soon.
	ErrEnding error = &berth.Error{Code: "REGISTRY_ENDING", Message: "the registry is ending"}
	// ErrIncompatible: host and plugin have no version of the control plane in common.
	ErrIncompatible error = &berth.Error{Code: "VERSION_UNSUPPORTED", Message: "versions do not go together"}
	// ErrAddressInUse: another program listens at the address that a lease asks for.
	ErrAddressInUse error = &berth.Error{Code: "ADDRESS_IN_USE", Message: "address already in use"}
)

// Controller is what a host may ask of the process that serves a layout. Its methods may run at once. A
// plugin runs for as long as somebody holds a lease or waits for an answer, and some time longer; one that
// ends waits a while for what it was asked to do, and ends checkouts.
//
// Errors: ErrGone where the process has ended meanwhile, or before; ErrEnding where it is about to.
type Controller interface {
	// Hello tells who the plugin is. It is understood between all versions.
	Hello(ctx context.Context) (Info, error)

	// Lease keeps the plugin running until the lease is closed, or the host dies. The context
	// bounds the call, not the lease.
	//
	// Errors: ErrIncompatible; ErrEnding; berth.ErrLayoutInUse where the plugin is another host's own; those
	// of [Lease.Listen].
	Lease(ctx context.Context, opts LeaseOptions) (Lease, error)

	// Hold is Lease for as long as a process of this machine runs. What is asked for in Listen is opened.
	Hold(ctx context.Context, pid int, opts LeaseOptions) (Endpoint, error)

	// Status tells how the plugin is.
	Status(ctx context.Context) (Status, error)

	// Drain begins the plugin's end: leases and addresses end when the requests that are under way have.
	Drain(ctx context.Context) error

	berth.Flusher
	berth.Collector
	berth.Checker
	// Checkout lasts until its function is called, or the program ends that asked for it.
	berth.Checkouter
	berth.Watcher
}

// LeaseOptions say who takes a lease, and what for.
type LeaseOptions struct {
	Holder Holder
	// Key is what a private plugin was started with, and takes leases for.
	Key string
	// IdleTimeout is how long the plugin should stay when nobody holds a lease any more; the longest that was
	// asked for since it was last idle counts. Zero: DefaultIdleTimeout. Negative: no time.
	IdleTimeout time.Duration
	// Durability is what answers must promise at least: "process" or "power". A plugin's only rises. Empty:
	// whatever it is.
	Durability string
	// Logger is told what the plugin logs while the lease lasts. Nil: nobody. A lease falls behind
	// rather than keep the plugin waiting; what is left out then is counted.
	Logger *slog.Logger
	// AccessLog gets one record of each request to the addresses of this lease, as Logger does. Nil: nobody.
	AccessLog *slog.Logger
	// Listen opens an address at once. Nil: none.
	Listen *ListenOptions
}

// Holder is who holds a lease, or a plugin: for people.
type Holder struct {
	PID int `json:"pid"`
	// Command is the program's name, without its arguments.
	Command string `json:"command,omitempty"`
	// Version is that of its berth.
	Version string `json:"version,omitempty"`
}

// Lease is a host's claim on a plugin. Its methods may run at once.
type Lease interface {
	// Grant is what the lease began with.
	Grant() Grant

	// Listen opens one more address that serves the layout as opts say, until the lease ends.
	//
	// Errors: ErrAddressInUse; berth.ErrDenied for an address beyond the loopback interface without TLS and
	// passwords; what is wrong with the options.
	Listen(ctx context.Context, opts ListenOptions) (Endpoint, error)

	// Import stores a blob of a repository from a file of this machine, as [berth.Importer] says.
	Import(ctx context.Context, repository string, d digest.Digest, from berth.LocalFile) (berth.ImportMethod, error)

	Life

	// Close closes all that was opened for the lease, when the requests that are under way have ended, and
	// ends it. What was answered is on disk then, index.json included.
	Close() error
}

// Life is how long a lease lasts.
type Life interface {
	// Ending is closed when the plugin has begun to end in good order, and so does the lease.
	Ending() <-chan struct{}

	// Stopped reports whether that is because somebody has asked for it: then nobody should start another one
	// before it is needed. It is known when Ending is closed.
	Stopped() bool

	// Done is closed when the lease has ended, by Close or because the plugin is gone.
	Done() <-chan struct{}
}

// Grant is what a host gets with a lease.
type Grant struct {
	// Plugin is who the plugin is.
	Plugin Info
	// Endpoint is the address that was opened with the lease; empty if none was asked for.
	Endpoint Endpoint
}

// Info is who a plugin is.
type Info struct {
	Version   string    `json:"version"`
	Protocols Protocols `json:"protocols"`
	// Layout is the directory that it serves.
	Layout string `json:"layout"`
	PID    int    `json:"pid"`
	// Identity tells the directory from all others.
	Identity control.Identity `json:"-"`
}

// ListenOptions say how the layout is served at an address.
type ListenOptions struct {
	// Address is HOST:PORT. Empty: a free port of the loopback interface. A host beyond that interface is
	// served only with a certificate, and with Passwords or Rules. One that is a name is a name of the server.
	Address string
	// Token is what clients give as the password of any user, or as a bearer token. Empty, without Passwords
	// and Rules: everybody on this machine is let in.
	Token string
	// Socket serves also at a Unix socket that only this user can reach, with the same token: letters and
	// digits, for its name. Empty: at none.
	Socket string
	// ReadOnly refuses whatever would change the layout.
	ReadOnly bool
	// AllowMissing takes images and indexes whose children are missing.
	AllowMissing bool
	// Hosts are further names of the server, HOST[:PORT].
	Hosts []string
	// AllowClasses and DenyClasses are globs of what manifests may be pushed.
	AllowClasses, DenyClasses []string
	// MaxRequests and MaxUploads bound what is answered at once. Zero: the server's own bounds.
	MaxRequests, MaxUploads int
	// MinChunk is the smallest chunk, in bytes, that clients are asked to send. Zero: any.
	MinChunk int64
	// CertFile and KeyFile are a certificate and its key, as PEM; with them https is served, and nothing
	// else. Absolute paths: the files are read again when they change.
	CertFile, KeyFile string
	// Passwords are lines as htpasswd -B writes them. Empty: there are no users.
	Passwords []byte
	// Rules say who may do what, as YAML; clients get tokens then. Empty: each user may do everything.
	Rules []byte
}

// Endpoint is where a layout is served.
type Endpoint struct {
	// Address is HOST:PORT.
	Address string `json:"address"`
	// Token is the password of any user, or a bearer token. Empty: none is asked for.
	Token string `json:"token,omitempty"`
	// Socket is the path of the Unix socket, where one was asked for.
	Socket string `json:"socket,omitempty"`
}

// The kinds of process that serve a layout.
const (
	KindPlugin  = "plugin"  // shared, started by its first host, and ends when it is idle
	KindPrivate = "private" // one host's own
	KindProgram = "program" // part of a program, like berth serve, and ends with it
)

// Status is how a plugin is.
type Status struct {
	Info
	Kind    string    `json:"kind"`
	Started time.Time `json:"started"`
	// Durability is what answers promise.
	Durability string `json:"durability"`
	// Ending tells that it takes no more leases.
	Ending bool `json:"ending,omitempty"`
	// IdleTimeout is how long it stays without a lease.
	IdleTimeout time.Duration `json:"idleTimeout"`
	// Leases are in the order in which they were taken.
	Leases []LeaseStatus `json:"leases"`
	berth.Usage
}

// LeaseStatus is one lease. Its addresses are without their tokens.
type LeaseStatus struct {
	Holder
	Since     time.Time  `json:"since"`
	Addresses []Endpoint `json:"addresses,omitempty"`
}
