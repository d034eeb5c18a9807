// Package plugin is the control plane between a host and the process that serves a layout: Go types
// in, Go types out, gRPC between them, and go-plugin for the launch and the handshake.
//
// The plugin's side implements [Controller] and hands it to [Serve]; the host's side gets a
// Controller from [Dispense]. What crosses is control only. Blobs travel over HTTP, at the address
// that [Lease.Listen] returns.
//
// Others than the host that started a plugin reach it at a socket, if they may: [ServeControl] answers
// there, and [Connect] asks.
//
// Errors cross as the contract's: errors.Is(err, berth.ErrLayoutInUse) holds in the host although
// the error was raised in the plugin.
//
// # Handshake
//
// go-plugin starts the binary with a cookie in its environment, and the version numbers that the
// host speaks; the plugin answers with the one it chose and with the address of its socket. Which
// layout to serve is in [ConfigVariable]. There is one version so far, [ProtocolVersion].
package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	goplugin "github.com/hashicorp/go-plugin"

	"github.com/berthoci/berth"
)

// ProtocolVersion is the version of the control plane that this package speaks.
const ProtocolVersion = 1

// ConfigVariable is the environment variable that tells a plugin process what to serve: a [Config]
// as JSON.
const ConfigVariable = "BERTH_PLUGIN_CONFIG"

// The cookie is no secret: it keeps a person from starting a plugin by hand and wondering.
const (
	cookieKey   = "BERTH_PLUGIN"
	cookieValue = "b3b0a0f6-5d0a-4f4b-9b59-6b1a8f1f7d55"
)

// controllerName is what the plugin dispenses.
const controllerName = "controller"

// Handshake is what host and plugin must agree on before a version is negotiated.
func Handshake() goplugin.HandshakeConfig {
	return goplugin.HandshakeConfig{MagicCookieKey: cookieKey, MagicCookieValue: cookieValue}
}

// Requested reports whether this process was started to be a plugin.
func Requested() bool { return os.Getenv(cookieKey) == cookieValue }

// Config tells a plugin process what to serve.
type Config struct {
	// Layout is the layout directory, absolute.
	Layout string
	// Private ends the plugin with the host that started it: when its last lease ends, or when its
	// standard input does, which the host holds open.
	Private bool
	// Scratch is a directory that host and plugin meet in; whoever ends last removes it.
	Scratch string
	// Durability is what the answers of the registry promise: "process" or "power". Empty: "process".
	Durability string
	// Debug logs more.
	Debug bool
}

// wireConfig is a Config as JSON. Paths are bytes: not all of them are UTF-8.
type wireConfig struct {
	Layout     []byte `json:"layout"`
	Private    bool   `json:"private"`
	Scratch    []byte `json:"scratch,omitempty"`
	Durability string `json:"durability,omitempty"`
	Debug      bool   `json:"debug,omitempty"`
}

// Environ is the configuration as an environment variable.
func (c Config) Environ() (string, error) {
	data, err := json.Marshal(wireConfig{[]byte(c.Layout), c.Private, []byte(c.Scratch), c.Durability, c.Debug})
	return ConfigVariable + "=" + string(data), err
}

// ConfigFromEnviron reads what the host asked for.
func ConfigFromEnviron() (Config, error) {
	var w wireConfig
	if err := json.Unmarshal([]byte(os.Getenv(ConfigVariable)), &w); err != nil || len(w.Layout) == 0 {
		return Config{}, fmt.Errorf("environment variable %s does not name a layout", ConfigVariable)
	}
	return Config{string(w.Layout), w.Private, string(w.Scratch), w.Durability, w.Debug}, nil
}

// Controller is what a host may ask of a plugin, and what others may ask of the owner of a layout. Its
// methods may run at once. Only a lease keeps a plugin running: a plugin that ends waits a while for
// what it was asked to do, and ends checkouts.
type Controller interface {
	// Hello tells who the plugin is. It fails if the plugin could not open its layout.
	//
	// Errors: berth.ErrLayoutInUse, berth.ErrLayoutInvalid.
	Hello(ctx context.Context) (Info, error)

	// Lease keeps the plugin running until the lease is closed, or the host dies. The context
	// bounds the call, not the lease.
	Lease(ctx context.Context) (Lease, error)

	berth.Flusher
	berth.Collector
	berth.Checker
	// Checkout lasts until its function is called, or the program ends that asked for it.
	berth.Checkouter
}

// Lease is a host's claim on a plugin.
type Lease interface {
	// Listen opens an HTTP address that serves the layout as opts say, until the lease ends.
	Listen(ctx context.Context, opts ListenOptions) (Endpoint, error)

	// Done is closed when the lease has ended, by Close or because the plugin is gone.
	Done() <-chan struct{}

	// Close ends the lease, and all that was opened for it.
	Close() error
}

// Info is who a plugin is.
type Info struct {
	Version string
	// Layout is the directory that it serves.
	Layout string
	PID    int
	// Device and Inode are the directory's. Zero where the system has none.
	Device, Inode uint64
}

// ListenOptions say how the layout is served at an address.
type ListenOptions struct {
	// Anonymous lets anybody on this machine in. Otherwise the endpoint's token is needed.
	Anonymous bool
	// ReadOnly refuses whatever would change the layout.
	ReadOnly bool
	// AllowMissing takes images and indexes whose children are missing.
	AllowMissing bool
}

// Endpoint is where a layout is served.
type Endpoint struct {
	// Address is HOST:PORT on the loopback interface. The scheme is http.
	Address string `json:"address"`
	// Token is the password of any user, or a bearer token. Empty: everybody is let in.
	Token string `json:"token,omitempty"`
}
