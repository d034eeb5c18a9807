package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"os"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/berthoci/berth"
)

// maxMessage bounds a message of the control plane, in bytes: what may be longer goes in pieces.
const maxMessage = 4 << 20

// controllerName is what a plugin is said to have.
const controllerName = "controller"

// Announce tells the host that started this process that it takes calls, and does not return. It must be called
// once, in a process that was [Requested] to be a plugin, and takes over standard output.
func Announce() {
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig:  Handshake(),
		VersionedPlugins: Plugins(),
		GRPCServer:       goplugin.DefaultGRPCServer,
		Logger:           hclog.New(&hclog.LoggerOptions{Level: hclog.Error, Output: os.Stderr, JSONFormat: true}),
	})
}

// Plugins is what go-plugin negotiates about: one set for each version of the control plane.
func Plugins() map[int]goplugin.PluginSet {
	sets, spoken := map[int]goplugin.PluginSet{}, Spoken()
	for v := spoken.Oldest; v <= spoken.Newest; v++ {
		sets[v] = goplugin.PluginSet{controllerName: binding{}}
	}
	return sets
}

// binding has nothing to serve at go-plugin's own socket: calls go to the layout's.
type binding struct {
	goplugin.NetRPCUnsupportedPlugin
}

func (binding) GRPCServer(*goplugin.GRPCBroker, *grpc.Server) error { return nil }

func (binding) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("berth takes calls at the control socket of its layout")
}

// StartError reads, from a line that a plugin logged, why it did not start: with the code that it gave, so that the
// host can branch on it. Nil where the line is no such record.
func StartError(line string) error {
	var entry struct {
		Message string `json:"@message"`
		Error   string `json:"error"`
		Code    string `json:"code"`
	}
	switch {
	case json.Unmarshal([]byte(line), &entry) != nil || entry.Message != startFailure:
		return nil
	case entry.Code == "":
		return errors.New(startFailure + ": " + entry.Error)
	}
	return &berth.Error{Code: entry.Code, Message: entry.Error}
}
