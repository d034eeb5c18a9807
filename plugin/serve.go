package plugin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/berthoci/berth/plugin/internal/controlpb"
)

// maxMessage bounds a message of the control plane, in bytes: what may be longer goes in pieces.
const maxMessage = 1 << 20

// Serve answers a host's calls with c, until the host or the end of the process ends it. It must be
// called once, in a process that [Requested] to be a plugin, and takes over standard output.
func Serve(c Controller) {
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig:  Handshake(),
		VersionedPlugins: map[int]goplugin.PluginSet{ProtocolVersion: {controllerName: &binding{controller: c}}},
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage))...)
		},
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Error, Output: os.Stderr, JSONFormat: true}),
	})
}

// Plugins is what a host can talk to, by protocol version.
func Plugins() map[int]goplugin.PluginSet {
	return map[int]goplugin.PluginSet{ProtocolVersion: {controllerName: &binding{}}}
}

// Dispense returns the Controller of a plugin that was started with [Plugins].
func Dispense(client *goplugin.Client) (Controller, error) {
	rpc, err := client.Client()
	if err != nil {
		return nil, err
	}
	raw, err := rpc.Dispense(controllerName)
	if err != nil {
		return nil, err
	}
	c, ok := raw.(Controller)
	if !ok {
		return nil, errors.New("plugin dispensed something else than a controller")
	}
	return c, nil
}

// binding ties a Controller to go-plugin, on either side.
type binding struct {
	goplugin.NetRPCUnsupportedPlugin
	controller Controller
}

func (b *binding) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	controlpb.RegisterControlServer(s, newStub(b.controller))
	return nil
}

func (b *binding) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return newClient(conn), nil
}

// LogHandler writes records in the form in which go-plugin's host side reads them, one JSON object
// a line.
func LogHandler(w io.Writer, level slog.Level) slog.Handler {
	return slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		switch {
		case len(groups) > 0:
		case a.Key == slog.TimeKey:
			return slog.String("@timestamp", a.Value.Time().Format("2006-01-02T15:04:05.000000Z07:00"))
		case a.Key == slog.LevelKey:
			return slog.String("@level", strings.ToLower(a.Value.String()))
		case a.Key == slog.MessageKey:
			a.Key = "@message"
		}
		return a
	}})
}

// HostLogger gives go-plugin's host side a logger that ends in an slog one. What the plugin logs
// comes through with its level and attributes; what go-plugin says of itself is for debugging.
func HostLogger(log *slog.Logger) hclog.Logger {
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Trace})
	logger.RegisterSink(sink{log})
	return logger
}

type sink struct{ log *slog.Logger }

func (s sink) Accept(name string, level hclog.Level, msg string, args ...any) {
	own := slog.LevelDebug
	if name != "" {
		own = levels[level]
	}
	s.log.Log(context.Background(), own, msg, args...)
}

var levels = map[hclog.Level]slog.Level{
	hclog.Trace: slog.LevelDebug,
	hclog.Debug: slog.LevelDebug,
	hclog.Info:  slog.LevelInfo,
	hclog.Warn:  slog.LevelWarn,
	hclog.Error: slog.LevelError,
}
